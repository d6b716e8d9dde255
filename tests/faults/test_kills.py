"""SIGKILL for any process of a run at any time: driver, parent of the decode processes, decode process, probe."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.points import DONE_WITH_FAILURES, Campaign, check_complete, check_interrupted, store_digests

MOST_KILLS_OF_A_RUN = 3
MOST_RUNS = 40


def members(server: int) -> dict[str, list[int]]:
    """Process ids of a run by what they are; those of a run that was killed before may still be among them."""
    found: dict[str, list[int]] = {}
    for process in psutil.Process(server).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            kind = process.name()
            parent = process.parent()
            if kind == "zygote" and parent is not None and parent.name() == "zygote":
                kind = "worker"
            if kind in ("driver", "zygote", "probe", "worker") and process.status() != "zombie":
                found.setdefault(kind, []).append(process.pid)
    return found


class Killer:
    """While it is entered, kills random members of the run, or only those of a kind, a few times at most."""

    def __init__(
        self, server: int, rng: random.Random, kills: Counter[str], most: int, kind: str | None = None
    ) -> None:
        self.server, self.rng, self.kills, self.most, self.kind = server, rng, kills, most, kind
        self.pause_s = (0.05, 0.9) if kind is None else (0.0, 0.1)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def run(self) -> None:
        left = self.most
        while left and not self.stop.wait(self.rng.uniform(*self.pause_s)):
            there = members(self.server)
            kinds = [kind for kind in sorted(there) if self.kind in (None, kind)]
            if not kinds:
                continue
            kind = self.rng.choice(kinds)
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(there[kind]), signal.SIGKILL)
                self.kills[kind] += 1
            left -= 1


def kill_and_resume(campaign: Campaign, wanted: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Stores made under fire until there were so many kills: kills by kind of process, runs by their end."""
    rng = random.Random(seed)
    kills: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    while kills.total() < wanted:
        out = campaign.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        before = kills.total()
        for _ in range(MOST_RUNS):
            # The more it has suffered, the more it is let alone.
            most = MOST_KILLS_OF_A_RUN if kills.total() - before < 9 else 0
            with Killer(campaign.machine.pid, rng, kills, most):
                ended = campaign.encode(out)
            assert ended.code in (-9, 1, DONE_WITH_FAILURES), ended.text
            assert "Traceback" not in ended.text and "unexpected" not in ended.text, ended.text
            ends["killed" if ended.code == -9 else "finished" if ended.code == 3 else last(ended.text)] += 1
            if ended.code == DONE_WITH_FAILURES:
                break
            check_interrupted(out)
        assert store_digests(out) == campaign.digests, f"after {kills}"
        check_complete(out)
    return kills, ends


def last(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("error:"))


def nothing_is_left(server: int) -> None:
    until = time.monotonic() + 20
    while left := members(server):
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.05)


@pytest.mark.slow
def test_some_kills(pairs: Campaign) -> None:
    kills, _ = kill_and_resume(pairs, 20, seed=1)
    nothing_is_left(pairs.machine.pid)
    assert len(kills) >= 3, kills


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("zygote", 2), ("probe", 4)])
def test_kills_of_one_kind_cost_no_video(tars: Campaign, tmp_path: Path, kind: str, most: int) -> None:
    """The first run dies with a video in work, which the second one looks into."""
    out = tmp_path / "out"
    marks = [call.number for call in tars.calls if call.path.startswith("logs/marks/")]
    assert tars.encode(out, "kill", marks[2]).code == -9
    kills: Counter[str] = Counter()
    with Killer(tars.machine.pid, random.Random(0), kills, most, kind):
        ended = tars.encode(out)
    assert kills[kind] >= min(most, 2), kills
    assert ended.code == DONE_WITH_FAILURES, ended.text
    assert store_digests(out) == tars.digests


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills(pairs: Campaign, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    kills, ends = kill_and_resume(pairs, 150, seed)
    with capsys.disabled():
        print(f"\n{kills.total()} kills: {dict(kills)}; runs: {dict(ends)}, {time.monotonic() - begun:.0f} s")
    nothing_is_left(pairs.machine.pid)
    assert kills.keys() == {"driver", "zygote", "worker", "probe"}, kills
