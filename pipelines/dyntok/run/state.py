"""`status`: how far a store is."""

from __future__ import annotations

from dyntok.run.lock import is_locked
from dyntok.run.outcome import open_plan, outcome
from dyntok.run.reports import StatusReport
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import MANIFEST_FILE, PLAN_FILE


def status(out: str) -> StatusReport:
    """How many videos and shards of the store at `out` are done, failed and pending.

    Raises:
        StoreError: there is no store.
    """
    root = StoreRoot.open(out)
    DatasetInfo.load(root)
    running = is_locked(root)
    if not root.exists(PLAN_FILE):
        return StatusReport(out, "empty", running, 0, 0, 0, 0, 0, 0, 0, {}, 0, {})
    plan = open_plan(root)
    total = outcome(root, plan)
    complete = root.exists(MANIFEST_FILE) and total.shards_done == plan.shards
    state = "complete" if complete else "incomplete" if total.shards_done else "planned"
    return StatusReport(
        out=out,
        state=state,
        running=running,
        videos=plan.videos,
        done=total.done,
        failed=total.failed,
        pending=plan.videos - total.done - total.failed,
        shards=plan.shards,
        shards_done=total.shards_done,
        frames=total.frames,
        tokens=total.tokens,
        bytes=total.bytes,
        error_classes=total.error_classes,
        failures=total.failures,
    )
