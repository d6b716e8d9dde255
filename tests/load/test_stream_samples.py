"""What a stream's samples are made of, and where each part comes from."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed

import dyntok
from dyntok.errors import DamageError, UsageError
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
    assert sorted(sample.id for sample in samples_of(store, on_damage="skip")) == sorted(set(store.ids) - {"s1/v0.mp4"})


def test_defaults_are_a_seed_of_0_windows_of_16_shards_and_blocks_of_1(many: Store) -> None:
    by_default: TokenStream[StreamSample] = TokenStream(many)
    spelt_out: TokenStream[StreamSample] = TokenStream(many, seed=0, window=16, block=1, even_ranks=False)
    assert by_default.state_dict() == spelt_out.state_dict()
    state = by_default.state_dict()
    assert TokenStream(many, seed=1).state_dict()["dataset"] != state["dataset"]
    assert TokenStream(many, window=1).state_dict()["dataset"] != state["dataset"]
    assert TokenStream(many, shuffle=False).state_dict()["dataset"] != state["dataset"]


@pytest.mark.parametrize("even", [True, False])
def test_ranks_see_equally_many_where_that_is_asked_for(many: Store, even: bool) -> None:
    sizes = [len(samples_of(many, rank=rank, world_size=3, even_ranks=even)) for rank in range(3)]
    assert sizes == ([5, 5, 5] if even else [6, 6, 5])


def test_annotations_may_name_their_videos_in_a_field_of_ones_own(many: Store) -> None:
    rows = [{"id": number, "video": "none", "clip": name} for number, name in enumerate(many.ids)]
    samples = samples_of(many, annotations=rows, annotation_key="clip")
    assert len(samples) == len(many)
    assert all(sample.annotation and sample.annotation["clip"] == sample.id for sample in samples)


def test_a_budget_may_be_exactly_one_token_a_row_and_the_markers(many: Store) -> None:
    longest = max(many.ids, key=lambda name: many[name].frame_count)
    assert {sample.id for sample in samples_of(many, budget=24)} == set(many.ids)
    with pytest.raises(UsageError, match=f"{longest} has 4 frames"):
        samples_of(many, budget=23)


def test_a_threshold_is_compared_as_the_float32_that_it_becomes(many: Store) -> None:
    above = float(np.nextafter(0.6, 1.0))
    assert np.float32(above) == np.float32(0.6)
    assert len(samples_of(many, thresholds=above)) == len(many)
    with pytest.raises(UsageError, match="lies above"):
        samples_of(many, thresholds=float(np.nextafter(np.float32(0.6), np.float32(1))))


def test_ranks_are_those_of_torch_distributed_where_it_runs(
    many: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        stream: TokenStream[StreamSample] = TokenStream(many)
    finally:
        torch.distributed.destroy_process_group()
    assert (stream.cursor.rank_share.rank, stream.cursor.rank_share.ranks) == (0, 1)


FROZEN_ORDER = [13, 14, 7, 6, 4, 16, 9, 15, 12, 5, 8, 10, 3, 11, 0, 2, 1]
