from __future__ import annotations

import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

import dyntok
from dyntok.errors import DamageError, MergeError, StoreError, UsageError
from dyntok.load import Store, StreamSample, TokenStream
from dyntok.merging import coarsen, count_tokens, plan_from_similarity
from dyntok.run import encode
from tests.support.runs import demo_config
from tests.support.s3 import BUCKET, s3_server
from tests.support.samples import complete_store, level_tokens, make_info, sharded_store


@pytest.fixture(scope="module")
def out(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    (folder / "in").mkdir()
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(clip_folder / name, folder / "in" / name)
    (folder / "in" / "broken.mp4").write_text("no video")
    encode([str(folder / "in")], str(folder / "out"), demo_config(frames=8))
    return folder / "out"


@pytest.fixture
def store(out: Path) -> Store:
    return dyntok.open(out)


def test_a_store_is_a_mapping_of_the_encoded_videos(store: Store) -> None:
    assert len(store) == 2
    assert store.ids == list(store) == ["bikes.mp4", "carphone_pristine.mp4"]
    assert "bikes.mp4" in store
    assert "broken.mp4" not in store
    assert "nothing" not in store
    with pytest.raises(KeyError, match="nothing"):
        store["nothing"]
    with pytest.raises(StoreError, match="not_a_video") as caught:
        store["broken.mp4"]
    assert "--retry-failed" in str(caught.value.hint)
    assert "videos=2" in repr(store)


@pytest.mark.parametrize("threshold", [0.6, 0.5, 0.0, -1.0])
def test_any_lower_threshold_has_the_counts_of_the_map(store: Store, threshold: float) -> None:
    video = store["bikes.mp4"].at(threshold=threshold)
    assert [len(video)] == count_tokens(video.similarity, [threshold])
    assert video.row_splits[-1] == len(video) == video.group_size.numel()
    assert video.group_size.sum() == 8 * 196
    assert video.row_marker_index[-1] == len(video) + 8 * 14 - 1
    assert video.tokens.dtype == torch.bfloat16


def test_a_threshold_above_the_stored_one_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"stored at threshold 0\.6") as caught:
        store["bikes.mp4"].at(threshold=0.61)
    assert "--thresholds" in str(caught.value.hint)


@pytest.mark.parametrize("markers", ["row", "frame", "video", "none"])
def test_a_budget_is_met_with_its_markers(store: Store, markers: str) -> None:
    count = {"row": 112, "frame": 8, "video": 1, "none": 0}[markers]
    video = store["bikes.mp4"].at(budget=300, markers=markers)  # type: ignore[arg-type]
    assert len(video) + count <= 300
    above = float(np.nextafter(np.float32(video.threshold), np.float32(2)))
    if above <= 0.6:
        assert count_tokens(video.similarity, [above])[0] + count > 300


def test_budgets_combine_with_thresholds_and_frames(store: Store) -> None:
    stored = store["bikes.mp4"]
    assert stored.at(budget=10**6).threshold == 0.6
    assert stored.at(budget=10**6, threshold=0.45).threshold == 0.45
    video = stored.at(budget=150, frames=4)
    assert video.frame_index is not None
    assert len(video.frame_index) == 4
    assert len(video) + 56 <= 150
    with pytest.raises(MergeError, match="make 224"):
        stored.at(budget=200)


@pytest.mark.parametrize("markers", ["row", "frame", "video", "none"])
@pytest.mark.parametrize("budget", [28, 29, 60, 113, 150, 223, 224, 300, 10**6])
def test_frames_are_dropped_only_as_far_as_the_budget_demands(store: Store, markers: str, budget: int) -> None:
    def smallest(frames: int) -> int:
        return 14 * frames + {"row": 14 * frames, "frame": frames, "video": 1, "none": 0}[markers]

    video = store["bikes.mp4"].at(budget=budget, frames="fit", markers=markers)  # type: ignore[arg-type]
    frames = len(video.similarity)
    assert frames == max(n for n in range(1, 9) if smallest(n) <= budget)
    assert len(video) + smallest(frames) - 14 * frames <= budget


def test_a_budget_that_not_even_one_frame_meets_says_the_smallest(store: Store) -> None:
    with pytest.raises(MergeError, match="make 28"):
        store["bikes.mp4"].at(budget=27, frames="fit")
    with pytest.raises(UsageError, match="goes with a budget"):
        store["bikes.mp4"].at(frames="fit")


def test_the_stored_threshold_as_a_float32_is_the_stored_threshold(store: Store) -> None:
    assert torch.equal(store["bikes.mp4"].at(threshold=float(np.float32(0.6))).tokens, store["bikes.mp4"].at().tokens)


def test_a_subset_of_frames_is_that_part_of_the_whole(store: Store) -> None:
    stored = store["bikes.mp4"]
    whole, part = stored.at(threshold=0.5), stored.at(threshold=0.5, frames=3)
    assert whole.frame_index is not None
    assert part.frame_index is not None
    chosen = [0, 3, 7]
    assert part.frame_index.tolist() == whole.frame_index[chosen].tolist()
    spans = [slice(int(whole.row_splits[14 * f]), int(whole.row_splits[14 * (f + 1)])) for f in chosen]
    assert torch.equal(part.tokens, torch.cat([whole.tokens[span] for span in spans]))
    assert len(stored.at(frames=100).similarity) == 8
    with pytest.raises(UsageError, match="at least 1"):
        stored.at(frames=0)


def test_a_store_on_an_object_store_reads_the_same(out: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{out}/", "memory://copied/", recursive=True)
    try:
        remote, local = dyntok.open("memory://copied"), dyntok.open(out)
        assert remote.ids == local.ids
        assert torch.equal(remote["bikes.mp4"].at(frames=2).tokens, local["bikes.mp4"].at(frames=2).tokens)
    finally:
        memory.rm("/copied", recursive=True)


def test_a_store_goes_to_another_process(store: Store) -> None:
    first = store["bikes.mp4"].at()
    with get_context("spawn").Pool(1) as pool:
        there = pool.apply(_tokens_of, (store, "bikes.mp4"))
    assert there == first.tokens.float().tolist()


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_forks_read_a_store_on_an_object_store_that_was_read_before(shard_format: str) -> None:
    info = make_info(shard_format=shard_format, layout="explicit")
    with s3_server():
        url = f"s3://{BUCKET}/{shard_format}"
        sharded_store(url, [3], info=info)
        store = dyntok.open(url)
        there, later, _ = store.ids
        expected = _tokens_of(dyntok.open(url), later)
        store[there].at()  # a connection is open, and the shard; columns of the index are still to be read
        fork = get_context("fork")
        found = fork.SimpleQueue()
        reader = fork.Process(target=lambda: found.put(_tokens_of(store, later)))
        reader.start()
        reader.join(60)
        assert reader.exitcode == 0
        assert found.get() == expected


def test_a_store_written_anew_after_opening_gives_no_other_video(tmp_path: Path) -> None:
    sharded_store(str(tmp_path / "old"), [4])
    sharded_store(str(tmp_path / "new"), [4], failed=("s0/v0.mp4",))
    store, wanted = dyntok.open(tmp_path / "old"), "s0/v1.mp4"
    assert store[wanted].id == wanted
    store = dyntok.open(tmp_path / "old")
    stream: TokenStream[StreamSample] = TokenStream(store)
    (tmp_path / "old").rename(tmp_path / "aside")
    (tmp_path / "new").rename(tmp_path / "old")
    with pytest.raises(StoreError, match="was written anew"):
        _ = store[wanted].meta
    with pytest.raises(StoreError, match="was written anew"):
        list(stream)


def _tokens_of(store: Store, video_id: str) -> list[list[float]]:
    tokens: list[list[float]] = store[video_id].at().tokens.float().tolist()
    return tokens


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a dyntok store"):
        dyntok.open(tmp_path)


@pytest.mark.parametrize(
    "sample",
    [
        {"__key__": "k"},
        {"__key__": "k", "safetensors": b"", "json": b"{}"},
        {"__key__": "k", "safetensors": b"x" * 100, "json": b'{"id": "a", "dtype": "bfloat16"}'},
        {"__key__": "k", "safetensors": b"\xff" * 100, "json": b'{"id": "a", "dtype": "bfloat16"}'},
    ],
)
def test_damaged_samples_are_refused(sample: dict[str, object]) -> None:
    with pytest.raises(DamageError, match="sample k"):
        dyntok.decode_sample(sample)


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_stored_level_is_read_as_it_is(tmp_path: Path, shard_format: str, dtype: str) -> None:
    info = make_info(layout="explicit", shard_format=shard_format, dtype=dtype)
    _, samples = complete_store(str(tmp_path), info)
    # The levels of these samples are random each, so that none follows from another.
    opened = dyntok.open(tmp_path)
    for video_id, sample in samples.items():
        for level in sample.levels:
            expected = torch.from_numpy(level_tokens(level))
            if level.token_scale is None:
                expected = expected.view(torch.bfloat16)
            else:
                expected = (expected.float() * torch.from_numpy(level.token_scale)[:, None]).bfloat16()
            for threshold in (level.threshold, float(np.float32(level.threshold))):
                video = opened[video_id].at(threshold)
                assert torch.equal(video.tokens, expected)
                assert video.group_size.tolist() == level.group_size.tolist()
                assert video.row_splits.tolist() == level.row_splits.tolist()
            frame = opened[video_id].at(level.threshold, frames=1)
            assert torch.equal(frame.tokens, expected[: level.row_splits[info.grid.rows]])


def test_between_stored_levels_the_finest_is_merged(tmp_path: Path) -> None:
    _, samples = complete_store(str(tmp_path), make_info(layout="explicit"))
    opened = dyntok.open(tmp_path)
    for video_id, sample in samples.items():
        video = opened[video_id].at(0.45)
        fine = plan_from_similarity(video.similarity, 0.6)
        coarse = plan_from_similarity(video.similarity, 0.45)
        stored = torch.from_numpy(level_tokens(sample.levels[0])).view(torch.bfloat16)
        assert torch.equal(video.tokens, coarsen(stored, fine, coarse).bfloat16())


def test_int8_tokens_come_scaled_at_any_threshold(tmp_path: Path) -> None:
    _, samples = complete_store(str(tmp_path), make_info(dtype="int8"))
    opened = dyntok.open(tmp_path)
    for video_id, sample in samples.items():
        scale = sample.levels[0].token_scale
        assert scale is not None
        scaled = torch.from_numpy(level_tokens(sample.levels[0]).astype(np.float32) * scale[:, None])
        stored = opened[video_id]
        assert torch.equal(stored.at().tokens, scaled.bfloat16())
        video = stored.at(0.1)
        fine = plan_from_similarity(video.similarity, 0.6)
        coarse = plan_from_similarity(video.similarity, 0.1)
        assert coarse.token_count < fine.token_count
        torch.testing.assert_close(video.tokens.float(), coarsen(scaled, fine, coarse), atol=1e-6, rtol=4e-3)


def test_tokens_that_contradict_the_map_are_damage(tmp_path: Path) -> None:
    complete_store(str(tmp_path), make_info())
    shard = tmp_path / "shards" / "shard-000000.tar"
    similarity = dyntok.open(tmp_path)["a.mp4"].head.similarity.copy()
    data = bytearray(shard.read_bytes())
    begin = data.index(similarity.tobytes())
    one_more_boundary = tuple(np.argwhere(similarity > 0.6)[0])
    similarity[one_more_boundary] = 0.0
    data[begin : begin + similarity.nbytes] = similarity.tobytes()
    shard.write_bytes(data)
    with pytest.raises(DamageError, match="its similarity map gives") as caught:
        dyntok.open(tmp_path)["a.mp4"].at()
    assert "verify" in str(caught.value.hint)
