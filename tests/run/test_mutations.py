"""Whatever is done to a file, its video ends as done or as failed with a reason, and the run ends."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from dyntok.errors import VIDEO_ERROR_CODES
from dyntok.run import encode, status
from dyntok.store import verify
from tests.run.test_bad_inputs import rows_of
from tests.support.mutations import BASES, MUTATIONS, mutants
from tests.support.runs import demo_config

TIMEOUT_S = 20.0


def encode_mutants(tmp_path: Path, count: int, seed: int) -> Counter[str]:
    """Encode and reconcile; the error classes that came."""
    paths = mutants(tmp_path / "in", count, seed)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    began = time.monotonic()
    report = encode(
        [str(tmp_path / "in")], str(tmp_path / "out"), demo_config(decode_timeout_s=TIMEOUT_S, frames=2)
    )
    seconds = time.monotonic() - began
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not psutil.wait_procs(left, timeout=5)[1], "a process outlived the run"
    rows = rows_of(tmp_path / "out")
    assert rows.keys() == {path.name for path in paths}
    assert len(rows) == report.videos == report.done + report.failed == count
    assert status(str(tmp_path / "out")).pending == 0
    assert verify(str(tmp_path / "out")).ok
    for name, (state, code, message) in rows.items():
        assert state == "done" or (code in VIDEO_ERROR_CODES and name in message), name
    classes = Counter(code for _, code, _ in rows.values())
    # A video that hangs costs its limit, and one that dies is tried twice.
    hanging = classes["timeout"] + 2 * classes["worker_died"]
    assert seconds < 60 + count + hanging * TIMEOUT_S, f"{seconds:.0f} s: {classes}"
    print(f"{report.done} done, {report.failed} failed in {seconds:.0f} s: {dict(classes)}")
    return classes


def test_a_few_mutants(tmp_path: Path) -> None:
    encode_mutants(tmp_path, 2 * len(BASES) * len(MUTATIONS), seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hundreds_of_mutants(tmp_path: Path) -> None:
    classes = encode_mutants(tmp_path, 360, seed=2)
    assert len(classes) > 4, classes


def test_mutants_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, two, other = (mutants(tmp_path / name, 30, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    contents = [[path.read_bytes() for path in paths] for paths in (one, two, other)]
    assert [path.name for path in one] == [path.name for path in two] == [path.name for path in other]
    assert contents[0] == contents[1] != contents[2]
    assert len({path.suffix for path in one}) >= 6
