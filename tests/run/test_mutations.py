"""Whatever is done to a file, its video ends as done or as failed with a reason, and the run ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dyntok.errors import VIDEO_ERROR_CODES
from dyntok.run import encode, status
from dyntok.store import verify
from tests.run.test_bad_inputs import rows_of
from tests.support.mutations import BASES, MUTATIONS, mutants
from tests.support.runs import demo_config, environment

pytestmark = pytest.mark.usefixtures("real_boots")
TIMEOUT_S = 20.0
MARK = "DYNTOK_TEST_OFFSPRING"


def offspring(mark: str) -> set[psutil.Process]:
    """Processes below this one, and those that inherited the mark in their environment and have got away from it."""
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.add(process)
    return found


def encode_mutants(tmp_path: Path, count: int, seed: int, executor: str = "local") -> Counter[str]:
    """Encode and reconcile; the error classes that came."""
    paths = mutants(tmp_path / "in", count, seed)
    config = demo_config(decode_timeout_s=TIMEOUT_S, frames=2, shard_size="2MB", executor=executor)
    before = set(psutil.Process().children(recursive=True))
    os.environ[MARK] = mark = uuid.uuid4().hex
    try:
        began = time.monotonic()
        report = encode([str(tmp_path / "in")], str(tmp_path / "out"), config)
        seconds = time.monotonic() - began
    finally:
        del os.environ[MARK]
    left = list(offspring(mark) - before)
    assert not psutil.wait_procs(left, timeout=20)[1], "a process outlived the run"
    rows = rows_of(tmp_path / "out")
    assert rows.keys() == {path.name for path in paths}
    assert report.shards > count / 100, "in many shards"
    assert len(rows) == report.videos == report.done + report.failed == count
    assert status(str(tmp_path / "out")).pending == 0
    assert verify(str(tmp_path / "out")).ok
    for name, (state, code, message) in rows.items():
        assert state == "done" or (code in VIDEO_ERROR_CODES and name in message), name
    classes = Counter(code for _, code, _ in rows.values())
    # A video that hangs costs its limit, and one that dies is tried twice.
    hanging = classes["timeout"] + 2 * classes["worker_died"]
    assert seconds < 120 + count + hanging * TIMEOUT_S, f"{seconds:.0f} s: {classes}"
    print(f"{report.done} done, {report.failed} failed in {seconds:.0f} s: {dict(classes)}")
    return classes


def test_a_few_mutants(tmp_path: Path) -> None:
    encode_mutants(tmp_path, 2 * len(BASES) * len(MUTATIONS), seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_thousand_mutants(executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("RAY_worker_niceness", "0")
    classes = encode_mutants(tmp_path, 1000, seed=2, executor=executor)
    assert classes[""] > 100 and len(classes) > 4, classes


def test_offspring_that_got_away_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose parent has ended belongs to nobody, but for the mark."""
    monkeypatch.setenv(MARK, "away")
    # The child says its own number: right after exec, its environment cannot be read yet.
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    program = (
        "import sys; from subprocess import DEVNULL, PIPE, Popen; "
        f"print(Popen([sys.executable, '-c', {child!r}], stdout=PIPE, stderr=DEVNULL, text=True).stdout.readline())"
    )
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    away = psutil.Process(int(started.stdout))
    try:
        assert away in offspring("away") and away not in psutil.Process().children(recursive=True)
        assert away not in offspring("other")
    finally:
        away.kill()


def test_mutants_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    # Of the same sound clips: encoders need not give the same bytes twice.
    mutants(tmp_path / "a", 1, 0)
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a-sound", tmp_path / f"{name}-sound")
    one, two, other = (mutants(tmp_path / name, 30, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    contents = [[path.read_bytes() for path in paths] for paths in (one, two, other)]
    assert [path.name for path in one] == [path.name for path in two] == [path.name for path in other]
    assert contents[0] == contents[1] != contents[2]
    assert len({path.suffix for path in one}) >= 6
