"""How a fresh listing differs from a frozen plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dyntok.corpus.digests import DigestTable, digests_of
from dyntok.corpus.fingerprints import fingerprint, fingerprint_like
from dyntok.corpus.items import CorpusItem
from dyntok.corpus.pooled import chunks, ordered_map
from dyntok.errors import InputError, StoreMismatchError

if TYPE_CHECKING:
    from dyntok.corpus.plan import FrozenPlan

EXAMPLES = 100
_BATCH = 8192


@dataclass(frozen=True, slots=True)
class ChangedInput:
    """A planned video whose content is another now. Fingerprints as in `dyntok.corpus.fingerprints`.

    `new_fingerprint` is `size:<bytes>` where the size alone tells them apart and nothing was read.
    """

    id: str
    old_source: str
    new_source: str
    old_fingerprint: str
    new_fingerprint: str


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """What a listing says of a plan. The tuples hold the first 100; the counts are complete.

    `new`: not in the plan. `changed`: other content. `missing`: planned, and now not listed or not readable.
    `recovered`: was unreadable when it was planned and can be read now. `unreadable`: neither then nor now.
    """

    new: tuple[CorpusItem, ...] = ()
    new_count: int = 0
    changed: tuple[ChangedInput, ...] = ()
    changed_count: int = 0
    missing: tuple[str, ...] = ()
    missing_count: int = 0
    recovered: tuple[str, ...] = ()
    recovered_count: int = 0
    unreadable_count: int = 0
    unchanged_count: int = 0


class _Tally:
    """Counts everything, remembers the first few."""

    def __init__(self) -> None:
        self.new: list[CorpusItem] = []
        self.changed: list[ChangedInput] = []
        self.missing: list[str] = []
        self.recovered: list[str] = []
        self.counts = dict.fromkeys(("new", "changed", "missing", "recovered", "unreadable", "unchanged"), 0)

    def count(self, what: str, number: int = 1) -> bool:
        """Whether there is room for another example."""
        self.counts[what] += number
        return self.counts[what] <= EXAMPLES

    def difference(self) -> PlanDifference:
        counts = {f"{name}_count": number for name, number in self.counts.items()}
        return PlanDifference(
            new=tuple(self.new),
            changed=tuple(self.changed),
            missing=tuple(self.missing),
            recovered=tuple(self.recovered),
            **counts,
        )


def plan_table(plan: FrozenPlan) -> DigestTable:
    """The latest row of every planned id."""
    parts = [digests_of(batch["id"].to_pylist()) for batch in plan.column_batches("id")]
    return DigestTable(np.concatenate(parts))


def compare(plan: FrozenPlan, items: Iterable[CorpusItem], *, jobs: int, full: bool) -> PlanDifference:
    """See `Plan.compare`."""
    table = plan_table(plan)
    planned = _planned_fingerprints(plan)
    if full and not _all_full(planned):
        raise StoreMismatchError(
            "the plan holds cheap fingerprints, so the whole content cannot be compared",
            hint="leave full fingerprints off, or encode into a new folder",
        )
    seen = np.zeros(plan.rows, dtype=bool)
    tally = _Tally()
    for batch in chunks(items, _BATCH):
        rows = table.find(digests_of([item.id for item in batch]))
        _refuse_twice(plan, batch, rows, seen)
        known: list[tuple[CorpusItem, str | None, int]] = []
        texts = planned.take(pa.array(rows[rows >= 0])).to_pylist()
        for item, row in zip(batch, rows.tolist(), strict=True):
            if row >= 0:
                known.append((item, texts[len(known)], row))
            elif tally.count("new"):
                tally.new.append(item)
        for (item, old, row), now in zip(known, ordered_map(_now, known, jobs=jobs), strict=True):
            _judge(plan, tally, item, old, now, row)
    _count_unlisted(plan, tally, table.rows[~seen[table.rows]])
    return tally.difference()


def _planned_fingerprints(plan: FrozenPlan) -> pa.Array:
    batches = [batch["fingerprint"] for batch in plan.column_batches("fingerprint")]
    return pa.chunked_array([c for b in batches for c in b.cast(pa.large_string()).chunks]).combine_chunks()


def _all_full(planned: pa.Array) -> bool:
    is_full = pc.starts_with(planned.drop_null(), "full:")
    return bool(pc.all(is_full, min_count=0).as_py())


def _now(known: tuple[CorpusItem, str | None, int]) -> str | None:
    item, old, _ = known
    return fingerprint(item) if old is None else fingerprint_like(item, old)


def _judge(
    plan: FrozenPlan, tally: _Tally, item: CorpusItem, old: str | None, now: str | None, row: int
) -> None:
    if old == now:
        tally.count("unchanged" if old is not None else "unreadable")
    elif old is None:
        if tally.count("recovered"):
            tally.recovered.append(item.id)
    elif now is None:
        if tally.count("missing"):
            tally.missing.append(item.id)
    elif tally.count("changed"):
        tally.changed.append(ChangedInput(item.id, plan.entry(row).source, item.source, old, now))


def _refuse_twice(
    plan: FrozenPlan, batch: list[CorpusItem], rows: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
) -> None:
    for item, row in zip(batch, rows.tolist(), strict=True):
        if row >= 0 and seen[row]:
            raise InputError(
                f"the id {item.id!r} is listed twice, the second time as {item.location}",
                hint="give the inputs different ids with a manifest, or leave one out",
            )
        if row >= 0:
            seen[row] = True


def _count_unlisted(plan: FrozenPlan, tally: _Tally, rows: npt.NDArray[np.int64]) -> None:
    room = max(0, EXAMPLES - tally.counts["missing"])
    tally.missing.extend(plan.entry(row).id for row in np.sort(rows)[:room].tolist())
    tally.counts["missing"] += len(rows)
