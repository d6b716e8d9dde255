from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import dyntok
from dyntok.merging import merge
from dyntok.records import SourceRef
from dyntok.run import RunObserver, encode, estimate, status
from dyntok.run.settings import decode_settings
from dyntok.store import verify
from dyntok.video import decode_frames
from dyntok.vision import load_encoder
from tests.support.runs import demo_config, result_digests


@pytest.fixture(scope="module")
def encoded(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoded") / "store"
    report = encode([clip_folder], out, demo_config(dtype="float32"))
    assert (report.done, report.failed) == (4, 0)
    assert report.out == status(out).out == str(out)
    return out


def test_stored_tokens_are_those_of_decoding_encoding_and_merging_by_hand(encoded: Path, bikes: Path) -> None:
    config = demo_config(dtype="float32")
    encoder = load_encoder("demo", device="cpu")
    with decode_frames(SourceRef(str(bikes)), decode_settings(config, encoder.spec)) as video:
        images = np.stack(list(video.images()))
    by_hand = encoder.encode(torch.from_numpy(images))
    store = dyntok.open(encoded)
    for threshold in (0.6, 0.5, 0.4):
        stored = store["bikes.mp4"].at(threshold=threshold)
        direct = merge(by_hand.tokens.float(), by_hand.features, threshold)
        assert torch.equal(stored.row_splits, direct.row_splits)
        torch.testing.assert_close(stored.tokens, direct.tokens, atol=1e-6, rtol=1e-6)
    assert store["bikes.mp4"].at().frame_index.tolist() == [0, 83, 166, 249]


def test_every_input_is_in_the_store_and_the_store_is_sound(encoded: Path, clip_folder: Path) -> None:
    store = dyntok.open(encoded)
    assert sorted(store.ids) == sorted(p.name for p in clip_folder.glob("*.mp4"))
    assert verify(str(encoded)).ok
    assert status(str(encoded)).state == "complete"
    meta = store["bikes.mp4"].meta
    assert meta["source"] == "bikes.mp4"
    assert meta["sampling"] == {"mode": "uniform", "frames": 4}
    assert "/" not in json.dumps(meta["source"])


@pytest.mark.parametrize("layout", ["nested", "explicit"])
@pytest.mark.parametrize("format", ["webdataset", "zarr"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_formats_layouts_and_dtypes_hold_the_same_video(
    encoded: Path, carphone: Path, tmp_path: Path, format: str, layout: str, dtype: str
) -> None:
    config = demo_config(format=format, layout=layout, dtype=dtype)
    encode([str(carphone)], str(tmp_path / "out"), config)
    assert verify(str(tmp_path / "out")).ok
    video = dyntok.open(tmp_path / "out")[carphone.name].at(threshold=0.5)
    exact = dyntok.open(encoded)[carphone.name].at(threshold=0.5)
    assert torch.equal(video.row_splits, exact.row_splits)
    scale = exact.tokens.abs().amax(1, keepdim=True)
    error = (video.tokens.float() - exact.tokens).abs() / scale
    assert error.max() < (0.01 if dtype == "int8" else 0.005)


def test_batch_size_and_number_of_workers_change_nothing(encoded: Path, clip_folder: Path, tmp_path: Path) -> None:
    for number, workers in enumerate((1, 4)):
        out = tmp_path / str(number)
        encode([str(clip_folder)], str(out), demo_config(dtype="float32", decode_workers=workers))
        assert result_digests(out) == result_digests(encoded)
    out = tmp_path / "batch"
    encode([str(clip_folder)], str(out), demo_config(dtype="float32", batch_size=7))
    shards = {n: d for n, d in result_digests(out).items() if n.endswith(".tar")}
    assert shards == {n: d for n, d in result_digests(encoded).items() if n.endswith(".tar")}


def test_small_shards_hold_the_same_videos(encoded: Path, clip_folder: Path, tmp_path: Path) -> None:
    report = encode([str(clip_folder)], str(tmp_path / "out"), demo_config(dtype="float32", shard_size="100KB"))
    assert report.shards == 4
    many, one = dyntok.open(tmp_path / "out"), dyntok.open(encoded)
    for video_id in one.ids:
        assert torch.equal(many[video_id].at().tokens, one[video_id].at().tokens)


def test_fps_sampling_reads_every_nth_frame(bikes: Path, tmp_path: Path) -> None:
    encode([str(bikes)], str(tmp_path / "out"), demo_config(fps=2.0, frames=None))
    frames = dyntok.open(tmp_path / "out")["bikes.mp4"].at()
    assert frames.frame_index.tolist() == list(range(0, 250, 12))
    torch.testing.assert_close(frames.frame_pts, frames.frame_index.double() / 25.0)


def test_vision_space_stores_features(bikes: Path, tmp_path: Path) -> None:
    encode([str(bikes)], str(tmp_path / "out"), demo_config(space="vision", dtype="float32"))
    store = dyntok.open(tmp_path / "out")
    assert store.info.space == "vision"
    assert store["bikes.mp4"].at().tokens.shape[1] == store.info.feature_dim


def test_a_spilled_video_gives_the_same_bytes(
    encoded: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dyntok.run.shard import job
    from dyntok.run.shard.spool import SpoolBudget

    monkeypatch.setattr(job, "SpoolBudget", lambda: SpoolBudget(total_bytes=10_000, each_bytes=5_000))
    encode([str(clip_folder)], str(tmp_path / "out"), demo_config(dtype="float32"))
    assert result_digests(tmp_path / "out") == result_digests(encoded)


def test_the_observer_is_told_everything(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(clip_folder / "carphone_pristine.mp4", tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "b.mp4").write_text("this is no video")

    class Watcher(RunObserver):
        def __init__(self) -> None:
            self.seen: list[object] = []

        def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
            self.seen.append(("planned", videos, videos_done, shards, shards_done))

        def frames(self, frames: int, patches: int, tokens: int) -> None:
            self.seen.append(("frames", frames, patches))

        def video(self, row: object) -> None:
            self.seen.append(("video", row.status))  # type: ignore[attr-defined]

        def shard(self, shard: int, bytes_written: int) -> None:
            self.seen.append(("shard", shard, bytes_written > 0))

    watcher = Watcher()
    encode([str(tmp_path / "in")], str(tmp_path / "out"), demo_config(), observer=watcher)
    assert watcher.seen[0] == ("planned", 2, 0, 1, 0)
    assert set(watcher.seen[1:]) == {
        ("frames", 4, 784),
        ("video", "done"),
        ("video", "failed"),
        ("shard", 0, True),
    }


def test_estimate_writes_nothing_and_knows_frames_and_shards(clip_folder: Path, tmp_path: Path) -> None:
    plan = estimate([str(clip_folder)], demo_config())
    assert (plan.videos, plan.frames, plan.patches, plan.shards) == (4, 16, 16 * 196, 1)
    assert list(plan.tokens) == ["0.40", "0.45", "0.50", "0.55", "0.60"]
    assert sorted(plan.tokens.values()) == list(plan.tokens.values())
    by_fps = estimate([str(clip_folder)], demo_config(fps=1.0, frames=None))
    assert by_fps.probed == 4
    assert by_fps.frames == 10 + 6 + 4 + 4
