"""Sums for each value of a column that the manifest of the inputs had."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.errors import DamageError, UsageError
from dyntok.stats import Totals
from dyntok.stats.videos import columns_of, columns_read
from dyntok.store import StoreIndex, StoreRoot
from dyntok.store.index import explain_parquet
from dyntok.store.names import PLAN_FILE

MOST_VALUES = 1000
SHOWN_VALUES = 50
OTHERS, MISSING = "(other values)", "(no value)"
_LONGEST = 200
_BATCH_ROWS = 2**14


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Sums by value, most videos first; beyond 50 values, the rest together as `(other values)`."""

    column: str
    totals: dict[str, Totals]


def break_down(root: StoreRoot, index: StoreIndex, column: str) -> Breakdown:
    """Sums of a store's videos by a column of the manifest.

    Text is taken as it is, other values as JSON. Of a column with more than 1,000 values, those that come later in the
    plan than the first 1,000 are counted together.

    Raises UsageError if no video has the column; the hint names those that there are.
    """
    names = index.thresholds
    sums: dict[str, Totals] = {}
    values = _Values(root, column)
    for batch in index.batches(columns_read(names)):
        found = values.of(batch.column("id").to_pylist())
        places: dict[str, int] = {}
        codes = [places.setdefault(_place(sums, value, names), len(places)) for value in found]
        parts = Totals.grouped(columns_of(batch, names), names, np.array(codes), len(places))
        for value, part in zip(places, parts, strict=True):
            sums[value] = sums[value] + part
    if sums.keys() <= {MISSING}:
        raise UsageError(f"no video of {root.url} has a column {column!r}", hint=values.hint())
    return Breakdown(column, _shown(sums, names))


def _place(sums: dict[str, Totals], value: str, names: tuple[str, ...]) -> str:
    """Under which value the sums of `value` are kept."""
    if value not in sums:
        value = value if len(sums) < MOST_VALUES else OTHERS
        sums.setdefault(value, Totals.empty(names))
    return value


def _shown(sums: dict[str, Totals], names: tuple[str, ...]) -> dict[str, Totals]:
    rest = sums.pop(OTHERS, Totals.empty(names))
    by_size = sorted(sums.items(), key=lambda item: (-item[1].videos, item[0]))
    for _, total in by_size[SHOWN_VALUES:]:
        rest = rest + total
    return dict(by_size[:SHOWN_VALUES]) | ({OTHERS: rest} if rest.videos else {})


class _Values:
    """The column's value of each video, in the order of the index, which is that of first attempts in the plan."""

    def __init__(self, root: StoreRoot, column: str) -> None:
        self._where = root.where(PLAN_FILE)
        self._column = column
        self._rows = (row for batch in plan_columns(root, ["id", "extra"]) for row in batch.to_pylist())
        self._seen: set[str] = set()

    def of(self, ids: list[str]) -> list[str]:
        found = []
        for video_id in ids:
            extra = next((row["extra"] for row in self._rows if row["id"] == video_id), None)
            if extra is None:
                raise DamageError(f"{self._where} has no row of {video_id!r}", hint="run `dyntok verify`")
            found.append(self._value(extra))
        return found

    def _value(self, extra: str) -> str:
        if extra == "{}":
            return MISSING
        content: dict[str, Any] = json.loads(extra)
        if len(self._seen) < MOST_VALUES:
            self._seen.update(content)
        value = content.get(self._column)
        if value is None:
            return MISSING
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."

    def hint(self) -> str:
        if self._seen:
            return f"one of {', '.join(sorted(self._seen)[:SHOWN_VALUES])}"
        return "columns come from a manifest: give one to `dyntok encode`, with columns besides path and id"


def plan_columns(root: StoreRoot, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of the plan; one batch of rows in memory at a time."""
    with explain_parquet(root.where(PLAN_FILE)), pq.ParquetFile(root.seekable(PLAN_FILE)) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=names)
