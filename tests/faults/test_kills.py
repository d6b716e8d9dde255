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
    """While it is entered, kills random members of the run, a few times at most."""

    def __init__(self, server: int, rng: random.Random, kills: Counter[str], most: int) -> None:
        self.server, self.rng, self.kills, self.most = server, rng, kills, most
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def run(self) -> None:
        for _ in range(self.most):
            if self.stop.wait(self.rng.uniform(0.05, 0.9)):
                return
            there = members(self.server)
            if not there:
                continue
            kind = self.rng.choice(sorted(there))
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(there[kind]), signal.SIGKILL)
                self.kills[kind] += 1


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
