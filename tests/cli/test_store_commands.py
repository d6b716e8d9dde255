"""Commands that look at a store: status, verify, stats, inspect, convert."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dyntok
from dyntok.store import StoreRoot
from tests.cli.conftest import Ran, digests
from tests.support.samples import iter_records

FRAMES, ROWS, COLS = 3, 14, 14


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    """A copy of the store that may be damaged."""
    return Path(shutil.copytree(store, tmp_path / "copy"))


@pytest.mark.parametrize("command", ["status", "verify", "stats", "inspect"])
def test_what_is_no_store_is_said_to_be_none(command: str, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli(command, tmp_path)
    assert ran.code == 1
    assert ran.stdout == ""
    assert str(tmp_path) in ran.error


@pytest.mark.parametrize("command", ["status", "verify", "stats", "inspect"])
def test_looking_changes_nothing(command: str, store: Path, cli: Callable[..., Ran]) -> None:
    before = digests(store)
    assert cli(command, store).code == 0
    assert cli(command, store, "--json").json
    assert digests(store) == before


def test_status_of_a_complete_store(store: Path, cli: Callable[..., Ran]) -> None:
    text = cli("status", store).stdout
    assert "complete" in text
    assert "2: 2 done, 0 failed, 0 pending" in text


def test_status_of_a_store_whose_shard_is_gone(copy: Path, cli: Callable[..., Ran]) -> None:
    (copy / "shards" / "shard-000000.json").unlink()
    document = cli("status", copy, "--json").json
    assert (document["pending"], document["done"]) == (2, 0)
    assert document["state"] != "complete"


def test_verify_of_a_sound_store(store: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("verify", store, "--jobs", "2")
    assert (ran.code, ran.stderr) == (0, "")
    assert "no damage" in ran.stdout
    assert cli("verify", store, "--json").json["ok"] is True


@pytest.mark.parametrize("flags", [[], ["--shallow"]])
def test_verify_finds_one_changed_bit(flags: list[str], copy: Path, cli: Callable[..., Ran]) -> None:
    shard = copy / "shards" / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    ran = cli("verify", copy, *flags)
    assert ran.code == 4
    assert any(line.split()[:2] == ["digest", "shards/shard-000000.tar"] for line in ran.stdout.splitlines())
    commands = [f"dyntok verify {copy} --repair", f"dyntok encode --out {copy}"]
    assert [line.strip().strip("`") for line in ran.hint.splitlines()] == commands
    found = cli("verify", copy, "--json", *flags)
    assert found.code == 4
    assert (found.json["ok"], found.json["repair"]) == (False, commands)
    (finding,) = (item for item in found.json["findings"] if item["kind"] == "digest")
    assert finding["video"] and finding["videos"] == [finding["video"]]


def test_verify_shallow_does_less(store: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "dyntok.store.care.verification.shard_problems", lambda *arguments: seen.append(arguments) or []
    )
    assert cli("verify", store, "--shallow").code == 0
    assert not seen
    assert cli("verify", store).code == 0
    assert seen


def test_damage_met_by_another_command_exits_with_4(copy: Path, cli: Callable[..., Ran]) -> None:
    (copy / "dataset.json").write_text((copy / "dataset.json").read_text().replace("bfloat16", "float16"))
    ran = cli("inspect", copy)
    assert ran.code == 4
    assert "dataset.json" in ran.error


def test_stats_are_the_sums_of_the_records(store: Path, cli: Callable[..., Ran]) -> None:
    rows = [row for record in iter_records(StoreRoot.open(store)) for row in record.done]
    figures = cli("stats", store, "--json").json
    assert (figures["videos"], figures["done"], figures["failed"], figures["pending"]) == (2, 2, 0, 0)
    for name in ("frames", "seconds", "patches"):
        assert figures[name] == pytest.approx(sum(getattr(row, name) for row in rows))
    assert figures["bytes"] == sum(row.nbytes for row in rows)
    for threshold, total in figures["tokens"].items():
        counts = [row.tokens[threshold] for row in rows]
        assert total == sum(counts)
        assert figures["kept"][threshold] == pytest.approx(sum(counts) / sum(row.patches for row in rows))
        found = figures["percentiles"][f"tokens at {threshold}"]
        assert (found["p0"], found["p50"], found["p100"]) == (min(counts), np.median(counts), max(counts))
    assert sum(figures["decoders"].values()) == 2


def test_stats_as_text(store: Path, cli: Callable[..., Ran]) -> None:
    figures = cli("stats", store, "--json").json
    lines = [line.split() for line in cli("stats", store).stdout.splitlines()]
    for threshold, kept in figures["kept"].items():
        assert [threshold, f"{figures['tokens'][threshold]:,}", f"{100 * kept:.1f}", "%"] in lines


def test_inspect_says_how_the_store_was_made(store: Path, cli: Callable[..., Ran]) -> None:
    document = cli("inspect", store, "--json").json
    assert document["model"]["name"] == "demo"
    assert (document["videos"], document["done"]) == (2, 2)
    text = cli("inspect", store).stdout
    assert "demo (demo)" in text
    assert f"{FRAMES} frames a video, uniformly" in text
    assert cli("inspect", store, "--ids").stdout.split() == dyntok.open(store).ids


@pytest.mark.parametrize("threshold", [None, 0.5, 0.123, -1.0])
def test_inspect_counts_a_videos_tokens(threshold: float | None, store: Path, cli: Callable[..., Ran]) -> None:
    flags = [] if threshold is None else ["--threshold", threshold]
    for video_id in dyntok.open(store).ids:
        document = cli("inspect", store, video_id, "--json", *flags).json
        tokens = dyntok.open(store)[video_id].at(threshold=threshold)
        assert document["tokens_at_threshold"] == sum(document["frame_tokens"]) == len(tokens)
        assert document["frame_tokens"] == tokens.row_splits[::ROWS].diff().tolist()
        assert document["frame_pts"] == tokens.frame_pts.tolist()
        assert document["frame_index"] == tokens.frame_index.tolist()


def test_inspect_counts_above_the_stored_threshold_too(store: Path, cli: Callable[..., Ran]) -> None:
    document = cli("inspect", store, "carphone_pristine.mp4", "--threshold", 1.0, "--json").json
    assert document["tokens_at_threshold"] == FRAMES * ROWS * COLS


def test_inspect_finds_the_threshold_of_a_budget(store: Path, cli: Callable[..., Ran]) -> None:
    stored = cli("inspect", store, "carphone_pristine.mp4", "--json").json["tokens_at_threshold"]
    budget = FRAMES * ROWS + stored - 5
    document = cli("inspect", store, "carphone_pristine.mp4", "--budget", budget, "--json").json
    video = dyntok.open(store)["carphone_pristine.mp4"].at(budget=budget, markers="row")
    assert document["threshold"] == video.threshold
    assert document["tokens_at_threshold"] == len(video)
    assert document["tokens_at_threshold"] + document["row_markers"] <= budget
    text = cli("inspect", store, "carphone_pristine.mp4", "--budget", budget).stdout
    assert f"{len(video) + FRAMES * ROWS:,} with row markers" in text


def test_a_budget_that_cannot_be_met(store: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("inspect", store, "carphone_pristine.mp4", "--budget", FRAMES * ROWS)
    assert ran.code == 1
    assert str(2 * FRAMES * ROWS) in ran.error


def test_an_unknown_id_is_met_with_similar_ones(store: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("inspect", store, "carphone_pristin.mp4")
    assert ran.code == 2
    assert "carphone_pristine.mp4" in ran.hint
    assert "--ids" in cli("inspect", store, "0").hint


def test_flags_of_a_video_need_a_video(store: Path, cli: Callable[..., Ran]) -> None:
    assert cli("inspect", store, "--budget", 5).code == 2


def test_convert_there_and_back(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    there = cli("convert", store, tmp_path / "zarr", "--format", "zarr")
    assert there.code == 0, there.stderr
    assert f"{tmp_path / 'zarr'}, zarr" in there.stdout
    assert cli("verify", tmp_path / "zarr").code == 0
    back = cli("convert", tmp_path / "zarr", tmp_path / "tar", "--format", "webdataset", "--json")
    assert back.json["videos"] == 2
    assert digests(tmp_path / "tar") == digests(store)


def test_convert_into_the_same_format_is_refused(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("convert", store, tmp_path / "new", "--format", "webdataset")
    assert ran.code == 2
    assert "webdataset" in ran.error
