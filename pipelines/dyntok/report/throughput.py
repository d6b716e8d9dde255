"""How fast the runs of a store were, from what they left in `logs/`."""

from __future__ import annotations

from dataclasses import dataclass

from dyntok.errors import StoreError
from dyntok.run.tell.rates import added_up
from dyntok.run.tell.runlog import log_files
from dyntok.run.tell.snapshot import RunSnapshot
from dyntok.run.watch.reports import StageStatus
from dyntok.store import StoreRoot

MOST_RUNS = 1000
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Throughput:
    """Seconds by stage, added up over the newest runs that encoded a frame."""

    runs: int
    frames: int
    stages: tuple[StageStatus, ...]


def throughput(root: StoreRoot) -> Throughput:
    """Of the newest 1,000 runs. Logs are no part of a store: none, or unreadable ones, are no error."""
    try:
        files = [file for file in log_files(root) if file.kind == "state"]
    except StoreError:
        files = []
    newest = sorted(files, key=lambda file: file.start)[-MOST_RUNS:]
    runs = [run for file in newest if (run := _read(root, file.path)) is not None and run.frames]
    frames = sum(run.frames for run in runs)
    seconds = added_up([run.stage_seconds for run in runs])
    stages = tuple(StageStatus(stage, value, frames / value) for stage, value in seconds.items() if value > 0)
    return Throughput(len(runs), frames, stages)


def _read(root: StoreRoot, path: str) -> RunSnapshot | None:
    try:
        return RunSnapshot.from_bytes(root.read_bytes(path, _MAX_BYTES))
    except StoreError:
        return None
