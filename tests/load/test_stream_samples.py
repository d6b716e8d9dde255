"""What a stream's samples are made of, and where each part comes from."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch

import dyntok
from dyntok.errors import DamageError
from dyntok.load import Store, StreamSample, TokenStream
from dyntok.load.order import draw
from dyntok.merging import MarkerMode


def samples_of(store: Store, **options: object) -> list[StreamSample]:
    stream: TokenStream[StreamSample] = TokenStream(store, **options)  # type: ignore[arg-type]
    return list(stream)


def test_a_sample_says_which_epoch_it_is_of_and_which_markers_it_counts(many: Store) -> None:
    stream: TokenStream[StreamSample] = TokenStream(many, markers="frame")
    stream.set_epoch(2)
    assert {(sample.epoch, sample.markers) for sample in stream} == {(2, "frame")}


@pytest.mark.parametrize("seed", [0, 3])
def test_thresholds_are_drawn_by_seed_epoch_and_id(many: Store, seed: int) -> None:
    thresholds = (0.4, 0.45, 0.5, 0.55, 0.6)
    stream: TokenStream[StreamSample] = TokenStream(many, thresholds=thresholds, seed=seed)
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        for sample in stream:
            assert sample.video.threshold == draw(thresholds, seed, epoch, sample.id)


def test_the_order_of_an_epoch_is_that_of_every_release(many: Store) -> None:
    stream: TokenStream[StreamSample] = TokenStream(many, seed=3, window=2)
    stream.set_epoch(1)
    assert [many.ids.index(sample.id) for sample in stream] == FROZEN_ORDER


@pytest.mark.parametrize("frames", [1, 2])
def test_a_number_of_frames_is_taken_of_every_video(many: Store, frames: int) -> None:
    for sample in samples_of(many, frames=frames):
        expected = many[sample.id].at(frames=frames)
        assert sample.video.similarity.shape[0] == min(frames, many[sample.id].frame_count)
        assert torch.equal(sample.video.tokens, expected.tokens)


@pytest.mark.parametrize("markers", ["row", "frame", "video", "none"])
def test_frames_are_dropped_where_the_budget_is_too_small_for_them(many: Store, markers: MarkerMode) -> None:
    dropped = 0
    for sample in samples_of(many, budget=9, frames="fit", markers=markers):
        expected = many[sample.id].at(budget=9, frames="fit", markers=markers)
        assert torch.equal(sample.video.tokens, expected.tokens)
        dropped += many[sample.id].frame_count - sample.video.similarity.shape[0]
    assert dropped > 0


def test_damage_that_only_the_tokens_show_is_skipped_too(many_url: Path, tmp_path: Path) -> None:
    """A similarity that was changed is found when the tokens that follow from it are others than those stored."""
    folder = tmp_path / "damaged"
    shutil.copytree(many_url, folder)
    shard = folder / "shards/shard-000001.tar"
    content = bytearray(shard.read_bytes())
    start = 512  # the first member's tensors, behind its header
    (length,) = struct.unpack("<Q", content[start : start + 8])
    tensors = json.loads(content[start + 8 : start + 8 + length])
    second_patch = start + 8 + length + tensors["similarity"]["data_offsets"][0] + 4
    (similarity,) = struct.unpack("<f", content[second_patch : second_patch + 4])
    content[second_patch : second_patch + 4] = struct.pack("<f", -1.0 if similarity > 0.6 else 1.0)
    shard.write_bytes(content)
    store = dyntok.open(folder)
    assert store["s1/v0.mp4"].frame_count
    with pytest.raises(DamageError, match=r"s1/v0\.mp4"):
        samples_of(store)
    assert sorted(sample.id for sample in samples_of(store, on_damage="skip")) == sorted(
        set(store.ids) - {"s1/v0.mp4"}
    )


FROZEN_ORDER = [13, 14, 7, 6, 4, 16, 9, 15, 12, 5, 8, 10, 3, 11, 0, 2, 1]
