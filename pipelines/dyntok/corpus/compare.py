"""How a fresh listing differs from a frozen plan."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dyntok.corpus.digests import digests_of
from dyntok.corpus.fingerprints import fingerprint_like
from dyntok.corpus.items import CorpusItem
from dyntok.corpus.plan import FrozenPlan
from dyntok.corpus.pooled import chunks, ordered_map
from dyntok.errors import InputError, StoreMismatchError

EXAMPLES = 100
_BATCH = 8192
_JOBS = 8


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """What a listing says of a plan. The tuples hold the first 100 ids; the counts are complete.

    `new`: not in the plan. `changed`: could be read then and now, and has other content.
    """

    new: tuple[str, ...] = ()
    new_count: int = 0
    changed: tuple[str, ...] = ()
    changed_count: int = 0


def compare_plan(
    plan: FrozenPlan,
    items: Iterable[CorpusItem],
    *,
    full_fingerprint: bool = False,
    mended: Container[str] = (),
) -> PlanDifference:
    """How a fresh listing differs from the plan, by content; fingerprints follow the scheme of the plan.

    The videos of `mended` may have changed.

    Raises:
        StoreMismatchError: `full_fingerprint` is asked of a plan that was made without.
        InputError: a planned id is listed twice.
    """
    table = plan.latest_rows()
    planned = _planned_fingerprints(plan)
    if full_fingerprint and not pc.all(pc.starts_with(planned.drop_null(), "full:"), min_count=0).as_py():
        raise StoreMismatchError(
            "the plan holds cheap fingerprints, so the whole content cannot be compared",
            hint="leave full fingerprints off, or encode into a new folder",
        )
    seen = np.zeros(plan.rows, dtype=bool)
    new: list[str] = []
    changed: list[str] = []
    new_count = changed_count = 0
    for batch in chunks(items, _BATCH):
        rows = table.find(digests_of([item.id for item in batch]))
        _refuse_twice(batch, rows, seen)
        unknown = [batch[i].id for i in np.flatnonzero(rows < 0).tolist()]
        prints = planned.take(pa.array(rows[rows >= 0])).to_pylist()
        known = zip((batch[i] for i in np.flatnonzero(rows >= 0).tolist()), prints, strict=True)
        readable = [(item, old) for item, old in known if old is not None and item.id not in mended]
        other = [id for id in ordered_map(_changed, readable, jobs=_JOBS) if id is not None]
        new_count += len(unknown)
        changed_count += len(other)
        new = [*new, *unknown][:EXAMPLES]
        changed = [*changed, *other][:EXAMPLES]
    return PlanDifference(tuple(new), new_count, tuple(changed), changed_count)


def _planned_fingerprints(plan: FrozenPlan) -> pa.Array:
    batches = [batch["fingerprint"] for batch in plan.column_batches("fingerprint")]
    return pa.chunked_array([c for b in batches for c in b.cast(pa.large_string()).chunks]).combine_chunks()


def _changed(known: tuple[CorpusItem, str]) -> str | None:
    """The id of an input that can be read and has another content than was planned."""
    item, planned = known
    now = fingerprint_like(item, planned)
    return None if now is None or now == planned else item.id


def _refuse_twice(batch: list[CorpusItem], rows: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> None:
    for item, row in zip(batch, rows.tolist(), strict=True):
        if row >= 0 and seen[row]:
            raise InputError(
                f"the id {item.id!r} is listed twice, the second time as {item.location}",
                hint="give the inputs different ids with a manifest, or leave one out",
            )
        if row >= 0:
            seen[row] = True
