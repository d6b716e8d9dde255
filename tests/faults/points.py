"""One point of the campaign: a run in which one call goes wrong, what is then to be seen, and the run after it."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import dyntok
from dyntok.errors import StoreError
from dyntok.store import StoreIndex, StoreRoot, verify
from tests.faults.shim import Call, Ended, Machine

FLAGS = ("--model", "demo", "--frames", "2", "--batch-size", "4", "--device", "cpu")
CLIPS = ("again.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")
BROKEN = "broken.mp4"
WRITES = ("write", "pwrite", "writev")
DEADLY = ("kill", "after", "torn")
DONE_WITH_FAILURES = 3


def store_digests(out: Path) -> dict[str, str]:
    """sha256 of every file of a store but logs, lock and temporary ones: all of it is the same between runs."""
    return {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest()
        for name in (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        if not name.startswith(("logs/", ".lock", ".tmp/"))
    }


@dataclass(slots=True)
class Tally:
    """What a campaign met: points by how their run ended, and what went wrong."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def points(self) -> int:
        return self.ends.total()

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return f"{self.points} points: {ends}; {len(self.wrong)} wrong"


@dataclass(frozen=True, slots=True)
class Campaign:
    """Runs of one corpus with one shard format.

    `calls` and `digests` are those of the undisturbed run. `unfinished` is a store that has all its shards and no
    index yet: `last_calls` are those of a run on a copy of it. Half of all calls write the index, and cost least there.
    """

    machine: Machine
    corpus: Path
    folder: Path
    flags: tuple[str, ...]
    unfinished: Path
    calls: tuple[Call, ...]
    last_calls: tuple[Call, ...]
    digests: dict[str, str]

    @classmethod
    def of(cls, machine: Machine, corpus: Path, folder: Path, shard_format: str, workers: int = 1) -> Campaign:
        """Runs once undisturbed, and looks whether what is held against later runs is right itself."""
        folder.mkdir()
        shards = ("--shard-size", "100KB", "--format", shard_format)
        flags = (*FLAGS, *shards, "--decode-workers", str(workers))
        out = folder / "reference"
        ended = machine.run("encode", corpus, "--out", out, *flags, folder=out)
        assert ended.code == DONE_WITH_FAILURES, ended.text
        assert len(list(out.glob("shards/*.json"))) == 3
        assert sorted(StoreIndex.open(StoreRoot.open(out)).ids.to_pylist()) == sorted([*CLIPS, BROKEN])
        assert sorted(dyntok.open(out).ids) == list(CLIPS)
        check_complete(out)
        digests = store_digests(out)
        unfinished = folder / "unfinished"
        shutil.copytree(out, unfinished)
        (unfinished / "index.parquet").unlink()
        (unfinished / "manifest.json").unlink()
        shutil.copytree(unfinished, folder / "out")
        last = machine.run("encode", corpus, "--out", folder / "out", *flags, folder=folder / "out")
        assert store_digests(folder / "out") == digests, last.text
        return cls(machine, corpus, folder, flags, unfinished, ended.calls, last.calls, digests)

    def encode(self, out: Path, action: str = "count", number: int = 0, clock_jump_s: int = 0) -> Ended:
        return self.machine.run(
            *("encode", self.corpus, "--out", out, *self.flags),
            folder=out,
            action=action,
            number=number,
            clock_jump_s=clock_jump_s,
        )

    @property
    def first_calls(self) -> tuple[Call, ...]:
        """Those of the undisturbed run before it writes the index."""
        end = next(call.number for call in self.calls if call.path.endswith(".rows"))
        return tuple(call for call in self.calls if call.number < end)

    def strike(self, action: str, calls: Iterable[Call], tally: Tally, *, finishing: bool = False) -> Tally:
        """Go through points, of a whole run or of one that finishes a store, and count them.

        What is wrong is collected, so that one point hides no other.
        """
        for number in (call.number for call in calls):
            out = self.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            if finishing:
                shutil.copytree(self.unfinished, out)
            struck = "nothing"
            try:
                ended = self.encode(out, action, number)
                struck = f"{ended.struck.name} {ended.struck.path}" if ended.struck else struck
                tally.ends[self.check(action, out, ended)] += 1
            except Exception as error:  # noqa: BLE001 - told of at the end
                tally.wrong.append(f"{action} {number} ({struck}): {type(error).__name__}: {error}")
        return tally

    def check(self, action: str, out: Path, ended: Ended) -> str:
        """Look at an interrupted store, resume it, look again. How the interrupted run had ended."""
        how = self.check_end(action, out, ended)
        check_interrupted(out)
        resumed = self.encode(out)
        assert resumed.code == DONE_WITH_FAILURES, resumed.text
        assert store_digests(out) == self.digests
        check_complete(out)
        return how

    def check_end(self, action: str, out: Path, ended: Ended) -> str:
        """A killed process is dead; one that met an error says so, or did not need what failed."""
        if ended.struck is None:
            assert ended.code == DONE_WITH_FAILURES, ended.text
            return "ended before"
        if action in DEADLY:
            assert ended.code == -9, ended.text
            return "killed"
        assert "Traceback" not in ended.text and "unexpected" not in ended.text, ended.text
        if ended.code == DONE_WITH_FAILURES:
            assert store_digests(out) == self.digests
            return "went on"
        assert ended.code == 1, ended.text
        assert action != "short", ended.text
        error = next(line for line in ended.text.splitlines() if line.startswith("error:"))
        assert str(out) in error, ended.text
        full = "No space left on device"
        assert (full if action.startswith("enospc") else "Input/output error") in error, ended.text
        assert full not in error or "free some space" in ended.text
        return "refused"


def check_interrupted(out: Path) -> None:
    """Nothing half-made is taken for a part of the store."""
    if not (out / "dataset.json").exists():
        assert not list(out.glob("shards/*"))
        return
    report = verify(str(out))
    assert report.ok, report.findings
    assert report.complete == (out / "manifest.json").exists()
    if not (out / "index.parquet").exists():
        with pytest.raises(StoreError, match="not complete"):
            dyntok.open(out)


def check_complete(out: Path) -> None:
    report = verify(str(out))
    assert report.ok and report.complete, report.findings
    assert (report.done, report.failed) == (len(CLIPS), 1)
    assert not list((out / ".tmp").glob("*"))


def striking(calls: Iterable[Call], action: str) -> list[Call]:
    """The calls that an action can befall."""
    return [call for call in calls if call.name in WRITES or action not in ("torn", "short")]


def spread(calls: list[Call], count: int) -> list[Call]:
    """So many of them, evenly spread, the first and the last among them."""
    if count >= len(calls):
        return calls
    return [calls[round(i * (len(calls) - 1) / (count - 1))] for i in range(count)]
