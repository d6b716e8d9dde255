"""`verify --repair`: mending a store under its lock."""

from __future__ import annotations

from dyntok.run.lock import store_lock
from dyntok.store import RepairReport, StoreRoot
from dyntok.store import repair as repair_store


def repair(out: str) -> RepairReport:
    """Find damage in the store at `out` and mend it, while nobody else writes to it.

    Raises:
        StoreError: there is no store, or it cannot be read or written.
        StoreLockedError: another process writes to it.
    """
    root = StoreRoot.open(out)
    with store_lock(root):
        report = repair_store(out)
        root.clear_scratch()  # not before `out` is known to be a store
        return report
