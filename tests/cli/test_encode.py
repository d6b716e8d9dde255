"""`dyntok encode` and `dyntok plan`, for real on real clips."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dyntok.store import CompletionRecord, StoreRoot
from tests.cli.conftest import Ran, digests

QUICK = ("--model", "demo", "--frames", "2", "--batch-size", "2", "--decode-workers", "1")


@pytest.fixture
def videos(tmp_path: Path, carphone: Path) -> Path:
    """A folder with one sound clip and one file that is no video."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(carphone, folder / "good.mp4")
    (folder / "bad.mp4").write_text("this is no video\n" * 50)
    return folder


def test_failed_videos_exit_with_3_and_are_listed(videos: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    out = tmp_path / "out"
    ran = cli("encode", videos, "--out", out, *QUICK)
    assert ran.code == 3, ran.stderr
    assert "1 done, 1 failed" in ran.stdout
    row = next(line for line in ran.stdout.splitlines() if line.startswith("bad.mp4"))
    assert row.split()[1] == "not_a_video"
    assert f"dyntok status {out} --failed" in ran.hint
    assert "built-in demo encoder" in ran.stderr

    status = cli("status", out, "--failed")
    assert status.code == 0
    assert row.split()[:2] in [line.split()[:2] for line in status.stdout.splitlines()]
    assert cli("status", out).stdout.count("bad.mp4") == 0
    document = cli("status", out, "--json").json
    assert (document["state"], document["done"], document["failed"], document["pending"]) == (
        "complete",
        1,
        1,
        0,
    )
    assert document["error_classes"] == {"not_a_video": 1}
    assert [failure["id"] for failure in document["failures"]] == ["bad.mp4"]

    again = cli("encode", "--out", out, "--retry-failed", "--json")
    assert again.code == 3, again.stderr
    assert (again.json["done"], again.json["failed"], again.json["shards"]) == (1, 1, 2)
    assert again.json["failures"][0]["attempt"] == 2


def test_without_input_the_store_goes_on_with_its_own_settings(
    tmp_path: Path, carphone: Path, cli: Callable[..., Ran]
) -> None:
    out = tmp_path / "out"
    settings = ("--fps", "1", "--max-frames", "3", "--thresholds", "0.5", "--dtype", "float16")
    first = cli("encode", carphone, "--out", out, "--model", "demo", *settings, "--decode-workers", "1", "--quiet")
    assert first.code == 0, first.stderr
    before = digests(out)
    shutil.rmtree(out / "shards")
    (out / "manifest.json").unlink()
    assert cli("encode", "--out", out, "--decode-workers", "2").code == 0
    assert digests(out) == before


def test_other_settings_are_refused(store: Path, cli: Callable[..., Ran]) -> None:
    before = digests(store)
    ran = cli("encode", "--out", store, "--thresholds", "0.3")
    assert ran.code == 2
    assert "thresholds: was [0.4, 0.45, 0.5, 0.55, 0.6], is [0.3]" in ran.error
    assert digests(store) == before


@pytest.mark.slow
def test_new_inputs_need_extend(tmp_path: Path, clip_folder: Path, cli: Callable[..., Ran]) -> None:
    out = tmp_path / "out"
    both = sorted(clip_folder.glob("carphone_*.mp4"))
    assert cli("encode", both[0], "--out", out, *QUICK).code == 0
    refused = cli("encode", *both, "--out", out, *QUICK)
    assert refused.code == 2
    assert "--extend" in refused.hint
    extended = cli("encode", *both, "--out", out, *QUICK, "--extend", "--json")
    assert extended.code == 0, extended.stderr
    assert (extended.json["done"], extended.json["already"], extended.json["shards"]) == (2, 1, 2)


def test_a_config_file_makes_the_store_that_flags_make(tmp_path: Path, carphone: Path, cli: Callable[..., Ran]) -> None:
    out, file = tmp_path / "out", tmp_path / "settings.yaml"
    file.write_text("model: demo\nframes: 9\nbatch-size: 2\ndecode-workers: 1\nthresholds: [0.5]\n")
    assert cli("encode", carphone, "--out", out, "--config", file, "--frames", "2").code == 0
    # Other settings would be refused.
    again = cli("encode", carphone, "--out", out, *QUICK, "--thresholds", "0.5", "--json")
    assert again.code == 0, again.stderr
    assert again.json["already"] == 1


def test_a_dry_run_is_a_plan_and_writes_nothing(tmp_path: Path, carphone: Path, cli: Callable[..., Ran]) -> None:
    out = tmp_path / "out"
    dry = cli("encode", carphone, "--out", out, *QUICK, "--dry-run", "--json")
    plan = cli("plan", carphone, *QUICK, "--json")
    assert dry.code == plan.code == 0, dry.stderr + plan.stderr
    assert dry.json == plan.json
    assert (plan.json["videos"], plan.json["frames"], plan.json["patches"]) == (1, 2, 2 * 196)
    assert not out.exists()
    text = cli("plan", carphone, *QUICK).stdout
    for name, tokens in plan.json["tokens"].items():
        assert any(line.split()[:2] == [name, str(tokens)] for line in text.splitlines())


def test_quiet_leaves_the_report_and_the_warning(store: Path, cli: Callable[..., Ran]) -> None:
    assert "2 videos in 1 shard, 2 of them from before" in cli("encode", "--out", store).stderr
    ran = cli("encode", "--out", store, "--quiet")
    assert ran.code == 0
    assert ran.stderr.startswith("warning: model demo is the built-in demo encoder")
    assert len(ran.stderr.splitlines()) == 1
    assert "2 done, 0 failed (2 by earlier runs)" in ran.stdout


def test_fail_fast_stops_at_the_video(videos: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("encode", videos, "--out", tmp_path / "out", *QUICK, "--fail-fast")
    assert ran.code == 1
    assert "bad.mp4" in ran.error
    assert "not_a_video" in ran.error


def test_a_folder_without_videos_is_a_usage_error(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("encode", tmp_path / "none", "--out", tmp_path / "out", *QUICK)
    assert ran.code == 2
    assert "does not exist" in ran.error


@pytest.mark.slow
def test_sigterm_leaves_a_store_that_the_same_command_completes(
    tmp_path: Path, carphone: Path, cli: Callable[..., Ran]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(12):
        shutil.copy(carphone, folder / f"{number:02d}.mp4")
    arguments = ["--model", "demo", "--frames", "16", "--shard-size", "100kB", "--decode-workers", "1"]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dyntok_cli", "encode", str(folder), "--out", str(out), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (out / "shards" / "shard-000000.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "hint: what was committed stays; the same command resumes" in stderr
    assert CompletionRecord.load(StoreRoot.open(out), 0) is not None
    assert cli("status", out, "--json").json["pending"] > 0

    assert cli("encode", folder, "--out", out, *arguments).code == 0
    assert cli("encode", folder, "--out", tmp_path / "whole", *arguments).code == 0
    assert digests(out) == digests(tmp_path / "whole")
    assert cli("verify", out).code == 0
