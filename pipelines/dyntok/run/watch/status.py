"""`status`: how far a store is. Imports no model and no decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.corpus import FrozenPlan
from dyntok.run.tell.rates import bottleneck, busy_shares
from dyntok.run.tell.summaries import ShardSummary
from dyntok.run.watch.indexed import read_index
from dyntok.run.watch.outcome import Outcome, open_plan, outcome
from dyntok.run.watch.reports import JobStatus, ShardStatus, StatusReport
from dyntok.run.watch.runs import Runs, read_runs
from dyntok.run.watch.survey import Survey, fitting, record_stamps
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import MANIFEST_FILE, PLAN_FILE

Counts = npt.NDArray[np.int64]


def status(out: str | os.PathLike[str], *, shards: bool = False) -> StatusReport:
    """How many videos and shards of the store at `out` are done, failed and pending, and at what pace.

    `shards` fills the list of shards.

    Raises:
        StoreError: there is no store.
    """
    return StoreWatch(out).status(shards=shards)


class StoreWatch:
    """`status` for one store, again and again: only what is new is read."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self._root = StoreRoot.open(out)
        self._survey = Survey(self._root)

    def status(self, *, shards: bool = False) -> StatusReport:
        """See `dyntok.run.status`."""
        root = self._root
        DatasetInfo.load(root)
        runs = read_runs(root)
        if not root.exists(PLAN_FILE):
            return StatusReport(self._root.url, "empty", runs.running)
        with open_plan(root) as plan:
            found = self._look(plan)
            return _report(self._root.url, plan, found, runs, with_shards=shards)

    def _look(self, plan: FrozenPlan) -> _Found:
        stamps = record_stamps(self._root)
        finalized = self._root.exists(MANIFEST_FILE)
        rows = plan.shard_rows()
        if finalized and (indexed := read_index(self._root, plan, stamps)) is not None:
            everywhere = np.ones(plan.shards, bool)
            return _Found(True, indexed.total, everywhere, indexed.done, rows - indexed.done, indexed.nbytes)
        summaries = fitting(self._survey.summaries(stamps), plan)
        return _Found.of(finalized, plan, summaries)


class _Found:
    """What is committed: totals, and arrays by shard in the order of the plan."""

    def __init__(
        self,
        finalized: bool,
        total: Outcome,
        committed: npt.NDArray[np.bool_],
        done: Counts,
        failed: Counts,
        nbytes: Counts,
    ) -> None:
        self.finalized, self.total, self.committed = finalized, total, committed
        self.done, self.failed, self.nbytes = done, failed, nbytes

    @classmethod
    def of(cls, finalized: bool, plan: FrozenPlan, summaries: Sequence[ShardSummary]) -> _Found:
        places = np.array([s.shard - plan.shard_numbers.start for s in summaries], np.int64)
        arrays: list[Any] = []
        for values in (
            [True] * len(summaries),
            [s.done for s in summaries],
            [len(s.failed) for s in summaries],
            [s.nbytes for s in summaries],
        ):
            array = np.zeros(plan.shards, np.int64)
            array[places] = values
            arrays.append(array)
        return cls(finalized, outcome(plan, summaries), arrays[0].astype(bool), *arrays[1:])


def _report(out: str, plan: FrozenPlan, found: _Found, runs: Runs, *, with_shards: bool) -> StatusReport:
    total = found.total
    seconds = runs.stage_seconds()
    etas = [run.eta_seconds for run in runs.live if run.eta_seconds is not None]
    jobs = _jobs(plan, found, runs)
    pending = plan.videos - total.done - total.failed
    whole_idle = 0 if runs.running else pending
    idle = sum(job.pending for job in jobs if not job.running) if jobs else whole_idle
    return StatusReport(
        out=out,
        state=_state(plan, found),
        running=runs.running,
        videos=plan.videos,
        done=total.done,
        failed=total.failed,
        pending=pending,
        shards=plan.shards,
        shards_done=total.shards_done,
        shards_pending=plan.shards - total.shards_done,
        shards_failed=int(np.count_nonzero(found.failed)),
        frames=total.frames,
        patches=total.patches,
        tokens=total.tokens,
        bytes=total.bytes,
        error_classes=total.error_classes,
        num_jobs=runs.num_jobs,
        jobs=jobs,
        videos_per_second=sum(run.videos_per_second for run in runs.live),
        frames_per_second=sum(run.frames_per_second for run in runs.live),
        eta_seconds=max(etas) if etas and pending else None,
        idle_pending=idle,
        bottleneck=bottleneck(seconds),
        busy=busy_shares(seconds),
        stages=runs.stages(),
        failures=total.failures,
        shard_list=_shards(plan, found, runs.num_jobs) if with_shards else (),
    )


def _state(plan: FrozenPlan, found: _Found) -> str:
    if found.total.shards_done < plan.shards:
        return "incomplete" if found.total.shards_done else "planned"
    return "complete" if found.finalized else "encoded"


def _jobs(plan: FrozenPlan, found: _Found, runs: Runs) -> tuple[JobStatus, ...]:
    if runs.num_jobs is None:
        return ()
    rows = plan.shard_rows()
    owner = np.arange(plan.shard_numbers.start, plan.shard_numbers.stop) % runs.num_jobs

    def per_job(values: npt.NDArray[Any]) -> list[int]:
        sums = np.bincount(owner, weights=values, minlength=runs.num_jobs or 1)
        return [round(value) for value in sums.tolist()]

    shards, shards_done = per_job(np.ones(plan.shards)), per_job(found.committed)
    videos, open_videos = per_job(rows), per_job(rows * ~found.committed)
    jobs = []
    for index in range(runs.num_jobs):
        run, running = runs.of(index), runs.is_running(index)
        jobs.append(
            JobStatus(
                index=index,
                running=running,
                shards=shards[index],
                shards_done=shards_done[index],
                videos=videos[index],
                pending=open_videos[index],
                host=run.host if run else "",
                pid=run.pid if run else 0,
                eta_seconds=run.eta_seconds if run in runs.live and run is not None else None,
            )
        )
    return tuple(jobs)


def _shards(plan: FrozenPlan, found: _Found, num_jobs: int | None) -> tuple[ShardStatus, ...]:
    columns = (plan.shard_rows(), found.committed, found.done, found.failed, found.nbytes)
    return tuple(
        ShardStatus(
            shard=shard,
            state="done" if committed else "pending",
            job=shard % num_jobs if num_jobs else None,
            videos=videos,
            done=done,
            failed=failed,
            bytes=nbytes,
        )
        for shard, videos, committed, done, failed, nbytes in zip(
            plan.shard_numbers, *(column.tolist() for column in columns), strict=True
        )
    )
