"""Clocks that jump, a second writer, and a disk that turns read-only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyntok.run import status
from dyntok.store import verify
from tests.faults.points import DONE_WITH_FAILURES, Campaign, check_complete, check_interrupted, store_digests
from tests.faults.shim import Ended
from tests.faults.test_kills import members
from tests.support.runs import run_command

HOURS = 3600


@pytest.mark.slow
def test_clocks_that_jump_change_nothing(tars: Campaign, tmp_path: Path) -> None:
    """Within a run, and from a killed run to the one that goes on, which seems to be earlier."""
    out = tmp_path / "out"
    assert tars.encode(out, "kill", len(tars.first_calls) // 2, clock_jump_s=5 * HOURS).code == -9
    check_interrupted(out)
    assert tars.encode(out, "kill", len(tars.first_calls) // 3, clock_jump_s=-30 * HOURS).code == -9
    check_interrupted(out)
    ended = tars.encode(out, clock_jump_s=-9 * HOURS)
    assert ended.code == DONE_WITH_FAILURES, ended.text
    assert store_digests(out) == tars.digests
    check_complete(out)
    report = status(str(out))
    assert report.state == "complete" and not report.running
    logs = [path for path in out.glob("logs/run-*.jsonl") if ".shards." not in path.name]
    events = [json.loads(line)["time"] for path in logs for line in path.read_text().splitlines()]
    assert events != sorted(events), "the clock did not jump"


@pytest.mark.slow
def test_a_second_writer_is_refused_and_spoils_nothing(tars: Campaign, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ends: list[Ended] = []
    first = threading.Thread(target=lambda: ends.append(tars.encode(out)))
    first.start()
    until = time.monotonic() + 60
    while not list(out.glob("shards/*.json")):
        assert first.is_alive() and time.monotonic() < until
        time.sleep(0.002)
    (driver,) = members(tars.machine.pid)["driver"]
    os.kill(driver, signal.SIGSTOP)
    while not all(is_stopped(task) for task in Path(f"/proc/{driver}/task").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.002)
    try:
        there = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        second = run_command("encode", tars.corpus, "--out", out, *tars.flags)
        assert second.returncode == 1, second.stderr
        assert f"error: another process is writing to {out}" in second.stderr
        assert "hint: wait for it, or stop it" in second.stderr
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == there
    finally:
        os.kill(driver, signal.SIGCONT)
        first.join(60)
    assert ends[0].code == DONE_WITH_FAILURES, ends[0].text
    assert store_digests(out) == tars.digests
    check_complete(out)


def is_stopped(task: Path) -> bool:
    """Whether a thread has taken the signal, which may last on a busy machine."""
    return (task / "stat").read_text().rpartition(") ")[2].startswith("T")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where this machine lets us make one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


@pytest.mark.slow
def test_a_store_that_has_become_read_only(tars: Campaign, disk: Path) -> None:
    out = disk / "out"
    assert tars.encode(out, "kill", len(tars.first_calls) // 2).code == -9
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    refused = tars.encode(out)
    assert refused.code == 1, refused.text
    assert f"error: cannot write to {out}: Read-only file system" in refused.text
    report = verify(str(out))
    assert report.ok and not report.complete
    # The kill may have come before or after the first shard's record.
    records = list((out / "shards").glob("shard-??????.json"))
    assert status(str(out)).state == ("incomplete" if records else "planned")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert tars.encode(out).code == DONE_WITH_FAILURES
    assert store_digests(out) == tars.digests
    check_complete(out)
