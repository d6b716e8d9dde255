"""Killed, or refused by the kernel, at any call that changes a file: the same command makes the same store."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.points import WRITES, Campaign, Tally, spread, store_digests, striking
from tests.faults.shim import Call, run_armed

ACTIONS = ("kill", "torn", "short", "eio", "enospc-on")


def held(tally: Tally) -> None:
    assert not tally.wrong, f"{tally}\n" + "\n".join(tally.wrong)
    assert tally.points > tally.ends["ended before"], "nothing was struck"


@pytest.mark.parametrize(("action", "share"), [("kill", 0.8), ("kill", 0.4), ("enospc-on", 0.5), ("torn", 0.3)])
def test_a_few_points(tars: Campaign, action: str, share: float) -> None:
    calls = striking(tars.calls, action)
    held(tars.strike(action, [calls[int(share * len(calls))]], Tally()))


def test_a_plan_that_cannot_be_written(tars: Campaign) -> None:
    call = next(call for call in tars.calls if call.name == "rename" and ".plan" in call.path)
    tally = tars.strike("eio", [call], Tally())
    held(tally)
    assert tally.ends["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_some_points(tars: Campaign, action: str) -> None:
    held(tars.strike(action, spread(striking(tars.calls, action), 6), Tally()))


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_some_points_of_zarr(zarrs: Campaign, action: str) -> None:
    held(zarrs.strike(action, spread(striking(zarrs.calls, action), 4), Tally()))


@pytest.mark.campaign
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_every_point(
    shard_format: str, action: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign: Campaign = request.getfixturevalue({"webdataset": "tars", "zarr": "zarrs"}[shard_format])
    begun = time.monotonic()
    tally = Tally()
    campaign.strike(action, striking(campaign.first_calls, action), tally)
    campaign.strike(action, striking(campaign.last_calls, action), tally, finishing=True)
    with capsys.disabled():
        print(f"\n{shard_format}, {action}: {tally}, {time.monotonic() - begun:.0f} s")
    held(tally)


@pytest.mark.parametrize("shard_format", ["webdataset", pytest.param("zarr", marks=pytest.mark.slow)])
def test_nothing_gets_its_name_before_it_is_on_the_disk(shard_format: str, request: pytest.FixtureRequest) -> None:
    """A power cut loses what was not flushed, and a renamed file that was not may come back empty."""
    campaign: Campaign = request.getfixturevalue({"webdataset": "tars", "zarr": "zarrs"}[shard_format])
    named = check_flushes(campaign.calls)
    assert {"plan.parquet", "dataset.json", "index.parquet", "manifest.json"} <= named
    assert sum(name.startswith("shards/") for name in named) == 9


def check_flushes(calls: Iterable[Call]) -> set[str]:
    """Follow which files and folders are not flushed; what was given a name outside of `.tmp` and `logs`."""
    dirty: set[str] = set()
    named: set[str] = set()
    for call in calls:
        if call.name in (*WRITES, "create", "truncate"):
            dirty.add(call.path)
        elif call.name == "fsync":
            dirty.discard(call.path)
        elif call.name in ("rename", "link"):
            moved = {name for name in dirty if name == call.path or name.startswith(f"{call.path}/")}
            dirty = dirty - moved | {call.to + name.removeprefix(call.path) for name in moved}
            if call.to.startswith((".tmp", "logs")):
                continue
            assert not moved, f"{call.to} has its name before {sorted(moved)} are flushed"
            if call.to.endswith(".json"):
                others = {name for name in dirty if name == "." or name.startswith("shards")}
                assert not others, f"{call.to} is there before {sorted(others)} are flushed"
            dirty.add(str(Path(call.to).parent))
            named.add(call.to)
    assert not {name for name in dirty if not name.startswith((".tmp", "logs", ".lock"))}, dirty
    return named


@pytest.mark.slow
def test_a_fork_changes_files_as_the_command_does(tars: Campaign, shim: Path, tmp_path: Path) -> None:
    """Or else the points would be those of something else."""
    out = tmp_path / "out"
    ended = run_armed(shim, "encode", tars.corpus, "--out", out, *tars.flags, folder=out, log=tmp_path / "calls")
    assert ended.code == 3, ended.text
    assert store_digests(out) == tars.digests
    assert kinds(ended.calls) == kinds(tars.calls)
    killed = tmp_path / "killed"
    number = len(tars.calls) // 2
    ended = run_armed(
        shim,
        *("encode", tars.corpus, "--out", killed, *tars.flags),
        folder=killed,
        log=tmp_path / "killed calls",
        action="kill",
        number=number,
    )
    assert ended.code == -9 and len(ended.calls) >= number
    tars.check("kill", killed, ended)


def kinds(calls: Iterable[Call]) -> Counter[tuple[str, str]]:
    """Calls without what is another each time: random names, process ids, and how far the log was."""
    return Counter(
        (call.name, re.sub(r"[0-9a-f]{32}|\.\d+\.tmp", "*", call.path))
        for call in calls
        if not call.path.startswith("logs")
    )
