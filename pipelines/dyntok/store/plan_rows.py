"""The rows of `plan.parquet` as the store needs them: to hold records and the index against the plan."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.parquet as pq

from dyntok.errors import DamageError
from dyntok.records import PlanEntry, SourceRef
from dyntok.store.index import explain_parquet
from dyntok.store.names import PLAN_FILE
from dyntok.store.root import StoreRoot

_COLUMNS = (
    "shard",
    "position",
    "id",
    "source",
    "path",
    "offset",
    "length",
    "size_bytes",
    "fingerprint",
    "extra",
    "attempt",
)


def plan_rows(root: StoreRoot) -> Iterator[PlanEntry]:
    """Every row, in order; one batch of rows in memory at a time. Raises DamageError."""
    local = root.local_path(PLAN_FILE)
    where = root.where(PLAN_FILE)
    source = str(local) if local is not None else root.open_read(PLAN_FILE)
    with explain_parquet(where), pq.ParquetFile(source) as file:
        missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise DamageError(f"{where} lacks the columns {', '.join(missing)}")
        for batch in file.iter_batches(columns=list(_COLUMNS)):
            columns = [batch.column(name).to_pylist() for name in _COLUMNS]
            for shard, position, video_id, shown, path, offset, length, *rest in zip(*columns, strict=True):
                yield PlanEntry(shard, position, video_id, shown, SourceRef(path, offset, length), *rest)
