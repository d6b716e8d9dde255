"""The runs of a store, from what they wrote under `logs/` and from the locks that they hold."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from dyntok.errors import StoreError
from dyntok.run.array import ArrayJob
from dyntok.run.lock import Writers, writers
from dyntok.run.tell.rates import added_up
from dyntok.run.tell.runlog import LogFile, log_files
from dyntok.run.tell.snapshot import RunSnapshot
from dyntok.run.watch.reports import StageStatus
from dyntok.store import StoreRoot

_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Runs:
    """The latest run of each job of the latest array, or the latest whole run, and which of them work now.

    `held`: who holds locks; on object stores nobody can be seen, and runs count as live that wrote lately.
    """

    latest: tuple[RunSnapshot, ...]
    live: tuple[RunSnapshot, ...]
    held: Writers

    @property
    def running(self) -> bool:
        return bool(self.held) or bool(self.live)

    @property
    def num_jobs(self) -> int | None:
        """Of the latest array; None where the latest run was a whole one."""
        if self.held.jobs:
            return self.held.jobs[0].count
        return self.latest[0].num_jobs if self.latest and not self.held.whole else None

    def of(self, index: int) -> RunSnapshot | None:
        """The latest run of a job."""
        return next((run for run in self.latest if run.job_index == index), None)

    def is_running(self, index: int) -> bool:
        """Whether a job works now."""
        return any(job.index == index for job in self.held.jobs) or any(run.job_index == index for run in self.live)

    @property
    def told(self) -> tuple[RunSnapshot, ...]:
        """Those whose pace is shown: the live ones, else the latest."""
        return self.live or self.latest

    def stage_seconds(self) -> dict[str, float]:
        """Lately, added up over the runs that are shown."""
        return added_up([run.recent_stages if self.live else run.stage_seconds for run in self.told])

    def stages(self) -> tuple[StageStatus, ...]:
        """Seconds by stage over the whole of the runs that are shown, and their frames a second."""
        seconds = added_up([run.stage_seconds for run in self.told])
        frames = sum(run.frames for run in self.told)
        return tuple(
            StageStatus(stage, value, frames / value if value > 0 else 0.0) for stage, value in seconds.items()
        )


def read_runs(root: StoreRoot) -> Runs:
    """Read the latest runs' snapshots. Never raises for what lies in `logs/`."""
    held = writers(root)
    latest = _latest(root, held)
    now = time.time()
    alive = [run for run in latest if run.seems_alive(now)]
    if root.is_local:
        jobs = set(held.jobs)
        alive = [run for run in alive if (run.job in jobs if run.job else held.whole)]
    return Runs(tuple(latest), tuple(alive), held)


def _latest(root: StoreRoot, held: Writers) -> list[RunSnapshot]:
    """Newest first: the newest run of all, and if it is a job of an array, the newest of each of its other jobs."""
    with suppress(StoreError):
        states = sorted((f for f in log_files(root) if f.kind == "state"), key=lambda f: f.start, reverse=True)
        newest = next((run for file in states if (run := _read(root, file)) is not None), None)
        if newest is None or newest.job is None:
            return [newest] if newest else []
        by_job: dict[ArrayJob, LogFile] = {}
        for file in states:
            if file.job is not None and file.job.count == newest.num_jobs:
                by_job.setdefault(file.job, file)
        return [run for file in by_job.values() if (run := _read(root, file)) is not None]
    return []


def _read(root: StoreRoot, file: LogFile) -> RunSnapshot | None:
    with suppress(StoreError):
        return RunSnapshot.from_bytes(root.read_bytes(file.path, _MAX_BYTES))
    return None
