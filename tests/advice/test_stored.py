"""Advice against what videos really give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyntok
from dyntok.advice import advise
from dyntok.errors import UsageError
from dyntok.load import Store
from dyntok.records import Grid
from dyntok.store import StoreRoot, build_index, write_manifest
from dyntok.store.tensorfile import Array
from tests.support.samples import make_info, make_plan, sharded_store, write_plan, write_shard

FRAMES = (3, 9, 20, 1)
MARKERS = ("row", "frame", "video", "none")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four shards of three videos, with 3, 9, 20 and 1 frames a video; one of them failed."""
    root, info = StoreRoot.open(str(tmp_path_factory.mktemp("advice") / "out"), create=True), make_info()
    info.save(root)
    shards = [make_plan(shard, [f"{shard}/{i}.mp4" for i in range(3)]) for shard in range(len(FRAMES))]
    entries = [entry for shard in shards for entry in shard]
    write_plan(root, entries)
    for shard, frames in zip(shards, FRAMES, strict=True):
        write_shard(root, info, shard, failed=("1/1.mp4",), frames=frames)
    build_index(root, iter(entries))
    write_manifest(root)
    return dyntok.open(root.url)


def lengths(store: Store, threshold: float, frames: int, markers: str) -> list[int]:
    """One video after the other, as a loader would see them."""
    return [len(store[i].select(threshold, frames=frames, markers=markers)) for i in store.ids]  # type: ignore[arg-type]


@pytest.mark.parametrize("markers", MARKERS)
@pytest.mark.parametrize("budget", [30, 75, 150, 10**6])
def test_the_table_counts_what_loading_gives(store: Store, budget: int, markers: str) -> None:
    advice = advise(store, budget, markers)  # type: ignore[arg-type]
    assert (advice.videos, advice.sampled, advice.stored_frames, advice.estimated) == (11, 11, 20, False)
    assert [row.frames for row in advice.rows] == [8, 16, 20]
    for row in advice.rows:
        assert row.videos == 11
        for name in ("0.40", "0.50", "0.60"):
            found = lengths(store, float(name), row.frames, markers)
            assert row.length[name] == np.median(found)
            assert row.fits[name] == pytest.approx(np.mean(np.array(found) <= budget))


@pytest.mark.parametrize("markers", MARKERS)
@pytest.mark.parametrize("budget", [1, 30, 75, 150, 10**6])
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_with_one_frame_more_too_few_would_fit(store: Store, budget: int, markers: str, share: float) -> None:
    advice = advise(store, budget, markers, share=share)  # type: ignore[arg-type]
    for name, frames in advice.most_frames.items():

        def fits(count: int, threshold: float = float(name)) -> bool:
            found = np.array(lengths(store, threshold, count, markers))
            return bool(np.mean(found <= budget) >= share)

        assert frames == 0 or fits(frames)
        assert frames == 20 or not fits(frames + 1)


def test_all_frames_are_counted_in_every_video_and_fewer_in_a_sample(store: Store) -> None:
    advice, again = (advise(store, 100, most_sampled=4) for _ in range(2))
    assert advice == again
    assert advice.sampled == 4
    assert [row.videos for row in advice.rows] == [4, 4, 11]
    assert advice.rows[-1] == advise(store, 100).rows[-1]
    every = lengths(store, 0.5, 8, "row")
    low, high = sorted(every)[1], sorted(every)[-2]
    assert low <= advice.rows[0].length["0.50"] <= high


def test_few_frames_are_counted_one_by_one(tmp_path: Path) -> None:
    root, _ = sharded_store(str(tmp_path), [2], frames=5)
    assert [row.frames for row in advise(dyntok.open(root.url), 10).rows] == [1, 2, 4, 5]


def test_a_similarity_at_the_threshold_does_not_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_tenths(rng: np.random.Generator, frames: int, grid: Grid, kind: str) -> Array:
        similarity = (rng.integers(-10, 11, (frames, grid.rows, grid.cols)) / 10).astype(np.float32)
        similarity[:, :, 0] = -np.inf
        return similarity

    monkeypatch.setattr("tests.support.samples.random_map", in_tenths)
    root, _ = sharded_store(str(tmp_path), [3], frames=12)
    store = dyntok.open(root.url)
    for row in advise(store, 100).rows:
        for name, length in row.length.items():
            assert length == np.median(lengths(store, float(name), row.frames, "row"))


def test_a_store_without_videos_has_no_advice(tmp_path: Path) -> None:
    root, _ = sharded_store(str(tmp_path), [1], failed=("s0/v0.mp4",))
    with pytest.raises(UsageError, match="holds no video"):
        advise(dyntok.open(root.url), 10)


def test_advice_is_json(store: Store) -> None:
    document = advise(store, 75).to_json()
    assert document["rows"][0]["fits"]["0.40"] == advise(store, 75).rows[0].fits["0.40"]
    assert document["most_frames"].keys() == {"0.40", "0.50", "0.60"}
