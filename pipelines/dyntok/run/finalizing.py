"""The last step of a job array: index and manifest, once every shard is there."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dyntok.corpus import FrozenPlan
from dyntok.errors import StoreError
from dyntok.run.array import ArrayJob
from dyntok.run.lock import numbers, store_lock
from dyntok.run.watch.outcome import open_plan
from dyntok.run.watch.reports import StatusReport
from dyntok.run.watch.runs import read_runs
from dyntok.run.watch.status import status
from dyntok.run.watch.survey import Survey, fitting
from dyntok.store import DatasetInfo, StoreIndex, StoreRoot, build_index, write_manifest
from dyntok.store.completion import PENDING
from dyntok.store.names import MARKER_FILE, PLAN_FILE


def finalize(out: str | os.PathLike[str]) -> StatusReport:
    """Write `index.parquet` and `manifest.json` of a store whose shards were encoded by a job array.

    The bytes are those that one `encode` of everything would have written; a second call writes the same again.

    Raises:
        StoreLockedError: a run or a job still writes to the store.
        StoreError: there is no store, or shards are missing; the message says which, and whose they are.
    """
    root = StoreRoot.open(out)
    info = DatasetInfo.load(root)
    if not root.exists(PLAN_FILE):
        raise StoreError(f"{out} has no plan yet", hint="start its jobs, or make the plan with `dyntok plan --out`")
    num_jobs = read_runs(root).num_jobs
    with store_lock(root), open_plan(root) as plan:
        root.clear_scratch()
        there = {summary.shard for summary in fitting(Survey(root).summaries(), plan)}
        _refuse_missing(root, plan, num_jobs, [shard for shard in plan.shard_numbers if shard not in there])
        if info.model.get("has_row_marker") and not root.exists(MARKER_FILE):
            raise StoreError(
                f"{root.where(MARKER_FILE)} is missing",
                hint=f"run `dyntok encode --out {root.url}` to write it",
            )
        build_index(root, plan.entries())
        # Building it has read every field of every record, which the look before had not.
        _refuse_missing(root, plan, num_jobs, _pending_shards(root))
        write_manifest(root)
    return status(out)


def _pending_shards(root: StoreRoot) -> list[int]:
    index = StoreIndex.open(root)
    pending = {
        shard
        for batch in index.batches(["status", "shard"])
        for shard, state in zip(batch["shard"].to_pylist(), batch["status"].to_pylist(), strict=True)
        if state == PENDING
    }
    return sorted(pending)


def _refuse_missing(root: StoreRoot, plan: FrozenPlan, num_jobs: int | None, missing: Sequence[int]) -> None:
    if not missing:
        return
    message = f"{len(missing)} of {plan.shards} shards of {root.url} are not written: {numbers(missing)}"
    hint = f"run `dyntok encode --out {root.url}` to encode them"
    if num_jobs:
        jobs = sorted({ArrayJob(shard % num_jobs, num_jobs) for shard in missing})
        which = f"job {jobs[0].index}" if len(jobs) == 1 else f"jobs {numbers(job.index for job in jobs)}"
        message += f"; they belong to {which} of {num_jobs}"
        hint = (
            f"run `dyntok encode --out {root.url} --num-jobs {num_jobs} --job-index {jobs[0].index}`"
            + (" and the others" if len(jobs) > 1 else "")
            + ", then finalize again"
        )
    raise StoreError(message, hint=hint)
