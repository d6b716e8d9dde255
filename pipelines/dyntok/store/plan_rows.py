"""The rows of `plan.parquet` as the store needs them: to hold records and the index against the plan."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.parquet as pq

from dyntok.plan_schema import check_schema, entries_of
from dyntok.records import PlanEntry
from dyntok.store.index import explain_parquet
from dyntok.store.names import PLAN_FILE
from dyntok.store.root import StoreRoot


def plan_rows(root: StoreRoot) -> Iterator[PlanEntry]:
    """Every row, in order; one batch of rows in memory at a time. Raises DamageError and StoreVersionError."""
    where = root.where(PLAN_FILE)
    with explain_parquet(where), pq.ParquetFile(root.seekable(PLAN_FILE)) as file:
        check_schema(file.schema_arrow, where)
        for batch in file.iter_batches():
            yield from entries_of(batch)
