"""The rows of `plan.parquet`, which `corpus` writes and `store` reads too. Imports pyarrow, `errors` and `records`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dyntok.errors import DamageError, StoreVersionError
from dyntok.records import PlanEntry, SourceRef

PLAN_VERSION = 1
VERSION_KEY = b"dyntok.plan"
SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("fingerprint", pa.string()),
        pa.field("extra", pa.string(), nullable=False),
        pa.field("attempt", pa.int16(), nullable=False),
    ],
    metadata={VERSION_KEY: str(PLAN_VERSION).encode()},
)


def check_schema(schema: pa.Schema, name: str) -> None:
    """Raise `DamageError` unless a file's columns are those of a plan, `StoreVersionError` for those of a newer one."""
    version = (schema.metadata or {}).get(VERSION_KEY, b"")
    if not version.isdigit():
        raise DamageError(f"{name} is no plan of dyntok", hint="name the plan.parquet of a store")
    if int(version) > PLAN_VERSION:
        raise StoreVersionError(
            f"{name} is a plan of version {int(version)}, this dyntok reads up to {PLAN_VERSION}",
            hint="pip install --upgrade dyntok",
        )
    if not schema.equals(SCHEMA):
        raise DamageError(f"{name}: the plan's columns are not those of version {PLAN_VERSION}")


def entries_of(rows: pa.Table | pa.RecordBatch) -> Iterator[PlanEntry]:
    """Rows with all columns as entries, in order."""
    columns: list[list[Any]] = [rows[name].to_pylist() for name in SCHEMA.names]
    for shard, position, video_id, source, path, offset, length, *rest in zip(*columns, strict=True):
        yield PlanEntry(shard, position, video_id, source, SourceRef(path, offset, length), *rest)
