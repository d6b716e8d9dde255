"""`status`: how far a store is. Imports no model and no decoder."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.corpus import FrozenPlan
from dyntok.run.tell.rates import bottleneck, busy_shares
from dyntok.run.watch.outcome import Committed, committed_by_shard, open_plan, read_index
from dyntok.run.watch.reports import JobStatus, ShardStatus, StatusReport, StoreTotals
from dyntok.run.watch.runs import Runs, read_runs
from dyntok.run.watch.survey import Survey, fitting, record_stamps
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import MANIFEST_FILE, PLAN_FILE


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
            return StatusReport(out=root.url, state="empty", running=runs.running)
        with open_plan(root) as plan:
            stamps = record_stamps(root)
            finalized = root.exists(MANIFEST_FILE)
            found = read_index(root, plan, stamps) if finalized else None
            if found is None:
                found = committed_by_shard(plan, fitting(self._survey.summaries(stamps), plan))
            return _report(root.url, plan, found, runs, finalized=finalized, with_shards=shards)


def _report(
    out: str, plan: FrozenPlan, found: Committed, runs: Runs, *, finalized: bool, with_shards: bool
) -> StatusReport:
    total = found.total
    seconds = runs.stage_seconds()
    etas = [run.eta_seconds for run in runs.live if run.eta_seconds is not None]
    jobs = _jobs(plan, found, runs)
    pending = plan.videos - total.done - total.failed
    whole_idle = 0 if runs.running else pending
    idle = sum(job.pending for job in jobs if not job.running) if jobs else whole_idle
    state = "complete" if finalized else "encoded"
    if total.shards_done < plan.shards:
        state = "incomplete" if total.shards_done else "planned"
    return StatusReport(
        **total.of(StoreTotals),
        out=out,
        state=state,
        running=runs.running,
        pending=pending,
        shards=plan.shards,
        shards_pending=plan.shards - total.shards_done,
        shards_failed=int(np.count_nonzero(found.failed)),
        num_jobs=runs.num_jobs,
        jobs=jobs,
        videos_per_second=sum(run.videos_per_second for run in runs.live),
        frames_per_second=sum(run.frames_per_second for run in runs.live),
        eta_seconds=max(etas) if etas and pending else None,
        idle_pending=idle,
        bottleneck=bottleneck(seconds),
        busy=busy_shares(seconds),
        stages=runs.stages(),
        shard_list=_shards(plan, found, runs.num_jobs) if with_shards else (),
    )


def _jobs(plan: FrozenPlan, found: Committed, runs: Runs) -> tuple[JobStatus, ...]:
    if runs.num_jobs is None:
        return ()
    rows = plan.shard_rows()
    owner = np.arange(plan.shard_numbers.start, plan.shard_numbers.stop) % runs.num_jobs

    def per_job(values: npt.NDArray[Any]) -> list[int]:
        sums = np.bincount(owner, weights=values, minlength=runs.num_jobs or 1)
        return [round(value) for value in sums.tolist()]

    shards, shards_done = per_job(np.ones(plan.shards)), per_job(found.there)
    videos, open_videos = per_job(rows), per_job(rows * ~found.there)
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


def _shards(plan: FrozenPlan, found: Committed, num_jobs: int | None) -> tuple[ShardStatus, ...]:
    columns = (plan.shard_rows(), found.there, found.done, found.failed, found.nbytes)
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
