"""`convert`: a store in the other shard format, written under its lock."""

from __future__ import annotations

from collections.abc import Callable

from dyntok.run.lock import store_lock
from dyntok.store import ConvertReport
from dyntok.store.care.conversion import Conversion


def convert(
    source: str,
    target: str,
    *,
    format: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """`dyntok.store.convert` while nobody else writes to the target. The source is not locked, and may be read-only.

    Raises:
        UsageError, StoreMismatchError, StoreError, DamageError: as `dyntok.store.convert`.
        StoreLockedError: another process writes to the target.
    """
    conversion = Conversion(source, target, format)
    with store_lock(conversion.target):
        conversion.target.clear_scratch()
        return conversion.run(on_progress)
