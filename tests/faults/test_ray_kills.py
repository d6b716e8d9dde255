"""Runs on Ray whose processes are killed at random: driver, actors, decode processes and what forks these."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dyntok.store import StoreRoot, verify
from dyntok.store.index import StoreIndex
from tests.support.runs import command, copied_clips, environment, result_digests, run_command

pytestmark = [pytest.mark.timeout(7200)]
FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "100KB", "--device", "cpu")
RAY = ("--executor", "ray", "--actors", 2, "--decode-workers", 2, "--cpus-per-actor", "0.5")
# How often each kind of process is chosen.
WEIGHTS = {"driver": 1, "actor": 4, "decode": 6, "zygote": 1}


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty copies of real clips and a file that is none."""
    return copied_clips(clip_folder, tmp_path_factory.mktemp("corpus"), 5)


def family(driver: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The processes of a run, by kind; only what has begun to work."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in WEIGHTS}
    found["driver"].append(driver)
    with suppress(psutil.NoSuchProcess):
        for process in driver.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("ray::EncodeActor"):
                    zygotes = process.children()
                    found["zygote"] += zygotes
                    workers = [worker for zygote in zygotes for worker in zygote.children()]
                    found["decode"] += workers
                    if workers:
                        found["actor"].append(process)
    return found


def run_and_kill(corpus: Path, out: Path, rng: random.Random, kills: Counter[str], most: int) -> int:
    """One run of the command, and kills until it ends or was killed itself. Its exit code."""
    arguments = command("encode", corpus, "--out", out, *FLAGS, *RAY)
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environment(), "RAY_worker_niceness": "0"},
        start_new_session=True,
    )
    driver = psutil.Process(process.pid)
    members: set[psutil.Process] = set()
    while process.poll() is None:
        time.sleep(rng.uniform(0.1, 0.8))
        found = family(driver)
        members.update(member for kind in found.values() for member in kind)
        if not found["actor"] or kills.total() >= most:
            continue
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if found[kind]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(rng.choice(found[kind]).pid, signal.SIGKILL)
                kills[kind] += 1
    _, said = process.communicate()
    assert process.returncode in (3, 1, -signal.SIGKILL), said
    _, alive = psutil.wait_procs(members, timeout=60)
    assert not alive
    return process.returncode


def kill_until(corpus: Path, out: Path, most: int, seed: int) -> Counter[str]:
    """Run again and again until the store is complete."""
    rng, kills = random.Random(seed), Counter[str]()
    for _ in range(20):
        if run_and_kill(corpus, out, rng, kills, most) == 3:
            return kills
    raise AssertionError(f"not complete after {kills}")


def check(out: Path, expected: dict[str, str], videos: int) -> None:
    assert result_digests(out) == expected
    report = verify(str(out))
    assert report.ok
    assert report.complete
    assert (report.done, report.failed) == (videos - 1, 1)
    ids = [video for batch in StoreIndex.open(StoreRoot.open(str(out))).batches() for video in batch["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == videos
    assert not list((out / ".tmp").glob("*")) if (out / ".tmp").exists() else True


@pytest.mark.parametrize(
    ("stores", "kills"),
    [
        pytest.param(1, 5, marks=pytest.mark.slow),
        pytest.param(6, 20, marks=pytest.mark.campaign),
    ],
)
def test_kills_at_random_cost_nothing_but_time(corpus: Path, tmp_path: Path, stores: int, kills: int) -> None:
    reference = tmp_path / "reference"
    assert run_command("encode", corpus, "--out", reference, "--executor", "local", *FLAGS).returncode == 3
    expected = result_digests(reference)
    counts: Counter[str] = Counter()
    for seed in range(stores):
        out = tmp_path / str(seed)
        counts += kill_until(corpus, out, kills, seed)
        check(out, expected, len(list(corpus.iterdir())))
        shutil.rmtree(out)
    print(f"{counts.total()} kills: {dict(counts)}")
    assert counts
