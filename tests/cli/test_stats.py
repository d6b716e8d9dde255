"""`dyntok stats`, on real clips."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

import dyntok
from dyntok.records import SourceRef
from dyntok.store import repair
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames
from dyntok_cli.commands import demo as demo_command
from tests.cli.conftest import Ran, digests
from tests.report.hostile import TEXTS, hostile_store
from tests.report.test_page import Parsed
from tests.support.samples import complete_store, make_info

SIDE = 252


def test_the_curve_and_the_groups_are_those_of_the_videos(store: Path, cli: Callable[..., Ran]) -> None:
    figures = cli("stats", store, "--json").json
    opened = dyntok.open(store)
    videos = [opened[video_id] for video_id in opened.ids]
    curve = dict(zip(figures["curve"]["threshold"], figures["curve"]["tokens"], strict=True))
    for threshold in (-1.0, 0.0, 0.2, 0.405, 0.5, 0.6):
        found = [video.at(threshold=threshold) for video in videos]
        assert curve[threshold] == sum(map(len, found))
    for name, counts in figures["group_size"].items():
        sizes = np.concatenate([video.at(threshold=float(name)).group_size for video in videos])
        assert counts == np.bincount(sizes, minlength=15)[1:].tolist()
    assert sum(figures["similarity"]["counts"]) == figures["patches"] * 13 // 14
    assert figures["recounted"] == 0
    again = cli("stats", store, "--json", "--recompute").json
    assert again["recounted"] == figures["shards"] == 1
    assert {**again, "recounted": 0} == figures


@pytest.mark.parametrize("threshold", [0.35, 0.55, 0.8])
def test_the_curve_says_what_encoding_at_a_threshold_gives(
    threshold: float, store: Path, tmp_path: Path, clip_folder: Path, cli: Callable[..., Ran]
) -> None:
    """Above the stored threshold too, which only the similarity maps know of."""
    curve = cli("stats", store, "--json").json["curve"]
    clips = sorted(clip_folder.glob("carphone_*.mp4"))
    flags = ["--out", tmp_path / "o", "--model", "demo", "--frames", 3, "--thresholds", threshold]
    assert cli("encode", *clips, *flags, "--quiet").code == 0
    again = dyntok.open(tmp_path / "o")
    tokens = sum(len(again[video_id].at(threshold=threshold).tokens) for video_id in again.ids)
    assert tokens == dict(zip(curve["threshold"], curve["tokens"], strict=True))[threshold]


def test_the_text_has_the_curve_and_the_extremes(store: Path, cli: Callable[..., Ran]) -> None:
    figures = cli("stats", store, "--json").json
    lines = [line.split() for line in cli("stats", store).stdout.splitlines()]
    kept = dict(zip(figures["curve"]["threshold"], figures["curve"]["kept"], strict=True))
    shown = next(line for line in lines if line and line[0] == "kept" and line[1] != "at")
    assert shown[1::2] == [f"{100 * kept[t / 10]:.1f}" for t in range(2, 11)]
    least = figures["least_kept"][0]
    assert next(line[1:2] for line in lines if line and line[0] == least["id"]) == ["least"]


def test_a_report_of_a_store_on_disk_leaves_the_store_alone(
    store: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    before = digests(store)
    page, tables = tmp_path / "new" / "r.html", tmp_path / "t.parquet"
    ran = cli("stats", store, "--html", page, "--parquet", tables)
    assert ran.code == 0, ran.stderr
    assert f"wrote {page}" in ran.stderr and "t.curve.parquet" in ran.stderr
    assert pq.read_table(tables).column("id").to_pylist() == dyntok.open(store).ids
    assert digests(store) == before
    assert [file.name for file in page.parent.iterdir()] == ["r.html"]
    assert cli("verify", store).code == 0


def test_thumbnails_are_the_frames_that_were_encoded(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    page = tmp_path / "r.html"
    assert cli("stats", store, "--html", page, "--quiet").code == 0
    settings = DecodeSettings(Sampling(3), DecodeLimits(), SIDE, SIDE)
    clips = {Path(clip).name: clip for clip in demo_command.demo_clips()}
    videos = Parsed(page.read_text()).data["stores"][0]["overlays"]
    assert {video["id"] for video in videos} == set(dyntok.open(store).ids)
    for video in videos:
        assert video["aspect"] == pytest.approx(560 / 320 if "bunny" in video["id"] else 176 / 144, rel=0.4)
        with decode_frames(SourceRef(clips[video["id"]]), settings) as decoded:
            frames = [image.copy() for image in decoded.images()]
        for shot in video["shots"]:
            encoded = base64.b64decode(shot["image"].removeprefix("data:image/jpeg;base64,"))
            decoder = av.CodecContext.create("mjpeg", "r")
            (picture,) = decoder.decode(av.Packet(encoded))
            image = picture.to_ndarray(format="rgb24").astype(int)
            distances = [np.abs(image - frame).mean() for frame in frames]
            assert np.argmin(distances) == shot["frame"] and distances[shot["frame"]] < 8
    assert cli("stats", store, "--html", page, "--no-thumbnails", "--quiet").code == 0
    videos = Parsed(page.read_text()).data["stores"][0]["overlays"]
    assert {shot["image"] for video in videos for shot in video["shots"]} == {""}


def test_budgets_are_for_the_report(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    refused = cli("stats", store, "--budget", "2000")
    assert refused.code == 2
    assert "--html" in refused.stderr and "dyntok plan STORE --budget" in refused.stderr
    page = tmp_path / "r.html"
    flags = ["--no-thumbnails", "--quiet", "--budget", "777", "--budget", "333"]
    assert cli("stats", store, "--html", page, *flags).code == 0
    texts = Parsed(page.read_text()).texts
    assert [text for text in texts if text.endswith("visual tokens")] == [
        "333 visual tokens",
        "777 visual tokens",
    ]


def test_several_stores_come_side_by_side(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    paths = [tmp_path / name for name in "ab"]
    complete_store(str(paths[0]), make_info())
    complete_store(str(paths[1]), make_info(thresholds=(0.45, 0.4567, 0.6), shard_format="zarr"))
    document = cli("stats", *paths, "--json").json
    assert [entry["store"] for entry in document["stores"]] == [str(path) for path in paths]
    assert cli("stats", paths[1], "--json").json == document["stores"][1]
    text = cli("stats", *paths, "--html", tmp_path / "r.html").stdout
    last = text.split("\n\n\n")[-1].splitlines()
    assert last[0].split()[:2] == ["store", "videos"] and last[0].split()[3:] == [
        *(word for name in ("0.40", "0.45", "0.4567", "0.50", "0.60") for word in ("at", name)),
        "bytes",
    ]
    assert "-" in last[2].split() and "-" not in last[3].split()
    assert len(Parsed((tmp_path / "r.html").read_text()).data["stores"]) == 2


def test_sums_by_a_column(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    hostile_store(tmp_path / "store")
    values = cli("stats", tmp_path / "store", "--by", "kind", "--json").json["by"]["values"]
    assert sorted(total["value"] for total in values) == sorted(TEXTS)
    text = cli("stats", tmp_path / "store", "--by", "kind").stdout
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b" in text
    ran = cli("stats", tmp_path / "store", "--by", "nothing")
    assert ran.code == 2 and "no video" in ran.error and "<b>, kind" in ran.hint


def test_a_store_in_progress_has_no_figures_yet(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    root.remove("index.parquet")
    ran = cli("stats", tmp_path)
    assert ran.code == 1 and "not complete" in ran.error


def test_damaged_statistics_are_named_and_can_be_gone_round(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    complete_store(str(tmp_path), make_info())
    before = cli("stats", tmp_path, "--json").json
    (tmp_path / "shards/shard-000001.stats").write_text("{}")
    ran = cli("stats", tmp_path)
    assert ran.code == 4 and "shard-000001.stats" in ran.error and "--repair" in ran.hint
    again = cli("stats", tmp_path, "--json", "--recompute").json
    assert {**again, "recounted": 0} == before
    assert repair(str(tmp_path)).ok
    assert cli("stats", tmp_path, "--json").json == before


def test_the_document_is_json_of_plain_types(store: Path, cli: Callable[..., Ran]) -> None:
    text = cli("stats", store, "--json").stdout
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
