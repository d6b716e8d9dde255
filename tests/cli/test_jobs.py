"""Job arrays, `status` and `logs` on the command line, and the scripts of the documentation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dyntok.run.watch.reports import JobStatus, ShardStatus, StageStatus, StatusReport
from tests.cli.conftest import Ran, digests
from tests.cli.test_docs import section
from tests.support.runs import environment

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
QUICK = (
    "--model", "demo", "--frames", "2", "--batch-size", "2", "--decode-workers", "1", "--shard-size", "50KB",
)  # fmt: skip
Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """Four sound clips and one file that is no video; one to a shard."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{number}.mp4")
    (folder / "bad.mp4").write_text("this is no video\n" * 50)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, videos: Path, cli: Cli) -> Path:
    """The store of one `dyntok encode`. Not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "store"
    assert cli("encode", videos, "--out", out, *QUICK).code == 3
    return out


@pytest.mark.slow
def test_jobs_and_finalize_from_the_command_line(videos: Path, whole: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "out"
    planned = cli("plan", videos, "--out", out, *QUICK, "--json")
    assert planned.code == 0, planned.stderr
    assert planned.json["shards"] == 5
    assert cli("status", out, "--json").json["state"] == "planned"

    codes = {}
    first = cli("encode", videos, "--out", out, *QUICK, "--num-jobs", 2, "--job-index", 1, "--json")
    codes[1] = first.code
    assert (first.json["job_index"], first.json["num_jobs"], first.json["shards"]) == (1, 2, 2)
    refused = cli("status", out, "--finalize")
    assert refused.code == 1
    assert "3 of 5 shards" in refused.error
    assert "they belong to job 0 of 2" in refused.error
    assert "--num-jobs 2 --job-index 0" in refused.hint
    assert not (out / "manifest.json").exists()

    second = cli("encode", "--out", out, "--decode-workers", "1", "--num-jobs", 2, "--job-index", 0)
    codes[0] = second.code
    assert "job     0 of 2" in second.stdout
    assert sorted(codes.values()) == [0, 3], "the job of the failed video ends with 3"
    assert "--finalize` writes the index" in cli("status", out).hint
    done = cli("status", out, "--finalize", "--json")
    assert (done.code, done.json["state"], done.json["failed"]) == (3, "complete", 1)
    assert cli("status", out, "--finalize").code == 3
    assert cli("status", out).code == 0
    assert digests(out) == digests(whole)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--num-jobs", "2"], "--num-jobs and --job-index go together"),
        (["--job-index", "0"], "--num-jobs and --job-index go together"),
        (["--num-jobs", "2", "--job-index", "2"], "there is no job 2 of 2"),
        (["--num-jobs", "2", "--job-index", "0", "--extend"], "a job of an array cannot change the plan"),
        (["--metrics-file", "metrics.txt"], "metrics.txt is no file of metrics"),
    ],
)
def test_wrong_flags_of_jobs(flags: list[str], error: str, videos: Path, tmp_path: Path, cli: Cli) -> None:
    ran = cli("encode", videos, "--out", tmp_path / "out", *QUICK, *flags)
    assert ran.code == 2
    assert error in ran.error
    assert ran.hint
    assert not (tmp_path / "out").exists()


def test_a_plan_can_grow_by_command(videos: Path, tmp_path: Path, cli: Cli) -> None:
    out, folder = tmp_path / "out", tmp_path / "in"
    shutil.copytree(videos, folder)
    assert cli("plan", folder, "--extend", *QUICK).code == 2
    assert cli("plan", folder, "--out", out, *QUICK).code == 0
    shutil.copy(folder / "0.mp4", folder / "4.mp4")
    refused = cli("plan", folder, "--out", out, *QUICK)
    assert refused.code == 2
    assert "--extend" in refused.hint
    grown = cli("plan", folder, "--out", out, *QUICK, "--extend", "--json")
    assert (grown.code, grown.json["videos"], grown.json["shards"]) == (0, 6, 6)


def test_shards_and_failures_are_listed(whole: Path, cli: Cli) -> None:
    lines = [line.split() for line in cli("status", whole, "--shards").stdout.splitlines()]
    assert sum(line[1:2] == ["done"] and line[0].isdigit() for line in lines) == 5
    listed = cli("status", whole, "--shards", "--json").json["shard_list"]
    assert [shard["shard"] for shard in listed] == list(range(5))
    assert sum(shard["failed"] for shard in listed) == 1


def test_logs_show_events_and_failures(whole: Path, cli: Cli) -> None:
    text = cli("logs", whole).stdout.splitlines()
    assert "start" in text[0]
    assert any("failed" in line and "error_class=not_a_video" in line and "id=bad.mp4" in line for line in text)
    assert sum(" shard " in line for line in text) == 5
    events = cli("logs", whole, "--json").json["events"]
    assert len(events) == len(text)
    assert events[0]["config"]["model"] == "demo"
    (failed,) = cli("logs", whole, "--failed", "--json").json["failed"]
    assert (failed["id"], failed["error_class"], failed["attempts"]) == ("bad.mp4", "not_a_video", 1)
    row = next(line for line in cli("logs", whole, "--failed").stdout.splitlines() if "bad.mp4" in line)
    assert row.split()[2:4] == ["not_a_video", "1"]
    other = next(n for n in range(5) if n != failed["shard"])
    assert cli("logs", whole, "--failed", "--shard", other).stdout == "no video failed\n"
    assert len(cli("logs", whole, "--shard", other, "--json").json["events"]) == 1
    assert cli("logs", whole, "--shard", 99).code == 2
    assert cli("logs", whole.parent).code == 1


def test_watch_ends_when_everything_is_done(videos: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "out"
    assert cli("plan", videos, "--out", out, *QUICK).code == 0
    command = [sys.executable, "-m", "dyntok_cli", "status", str(out), "--watch", "0.2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["state"], first["running"]) == ("planned", False)
        assert watching.poll() is None
        assert cli("encode", videos, "--out", out, *QUICK).code == 3
        documents = [json.loads(line) for line in watching.stdout]
        assert watching.wait(60) == 0
    assert documents[-1]["state"] == "complete"
    assert not documents[-1]["running"]
    assert any(document["running"] for document in documents)
    dones = [document["done"] for document in documents]
    assert dones == sorted(dones)


def test_watch_of_a_complete_store_shows_it_once(whole: Path, cli: Cli) -> None:
    assert len(cli("status", whole, "--watch", "60", "--json").stdout.splitlines()) == 1
    assert cli("status", whole, "--watch", "1", "--finalize").code == 2


def test_a_job_waits_for_the_plan_of_another(videos: Path, tmp_path: Path, cli: Cli) -> None:
    from dyntok.run.array import ArrayJob
    from dyntok.run.lock import plan_lock, store_lock
    from dyntok.store import StoreRoot

    out = tmp_path / "out"
    root = StoreRoot.open(str(out), create=True, scratch=ArrayJob(0, 2).name)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store_lock(root, ArrayJob(0, 2)), plan_lock(root, lambda _: None):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    threading.Timer(1.0, release.set).start()
    started = time.monotonic()
    ran = cli("encode", videos, "--out", out, *QUICK, "--num-jobs", 2, "--job-index", 1)
    holder.join()
    assert ran.code in (0, 3), ran.stderr
    assert time.monotonic() - started >= 0.5
    assert "waiting: another job is making the plan" in ran.stderr


@pytest.mark.parametrize("record", [StatusReport, JobStatus, ShardStatus, StageStatus])
def test_every_field_of_the_status_is_documented(record: Any) -> None:
    for item in fields(record):
        assert f"`{item.name}`" in section("status"), item.name


def test_every_metric_is_documented_and_no_other(whole: Path) -> None:
    import re

    page = (EXAMPLES.parent / "running.md").read_text()
    text = (whole / "logs" / "metrics.prom").read_text()
    assert set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)) == set(re.findall(r"dyntok_\w+", page))


# the scripts --------------------------------------------------------------------------------------------------


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `dyntok` is this checkout's."""
    program = tmp_path / "bin" / "dyntok"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dyntok_cli "$@"\n')
    program.chmod(0o755)
    here = environment()
    return {**here, "PATH": f"{program.parent}{os.pathsep}{here['PATH']}"}


def script(name: str, *arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=170, check=False)


@pytest.mark.slow
def test_the_script_for_one_machine(videos: Path, whole: Path, tmp_path: Path, on_path: dict[str, str]) -> None:
    out = tmp_path / "out"
    ran = script("job_array.sh", 2, videos, out, *QUICK, env=on_path)
    assert ran.returncode == 3, ran.stderr
    assert "complete" in ran.stdout
    assert digests(out) == digests(whole)


@pytest.mark.slow
def test_the_scripts_for_slurm(videos: Path, whole: Path, tmp_path: Path, on_path: dict[str, str]) -> None:
    out = tmp_path / "out"
    assert "#SBATCH --array=0-15" in (EXAMPLES / "slurm_array.sh").read_text()
    assert "jobs=${DYNTOK_JOBS:-16}" in (EXAMPLES / "slurm_array.sh").read_text()
    codes = []
    for index in range(2):
        env = {**on_path, "SLURM_ARRAY_TASK_ID": str(index), "DYNTOK_JOBS": "2"}
        if index == 1:
            early = script("slurm_finalize.sh", out, env=on_path)
            assert early.returncode == 1
            assert "they belong to job 1 of 2" in early.stderr
        codes.append(script("slurm_array.sh", videos, out, *QUICK, env=env).returncode)
    assert sorted(codes) == [0, 3]
    assert script("slurm_finalize.sh", out, env=on_path).returncode == 3
    assert digests(out) == digests(whole)
