"""Writing `index.parquet` from the plan and the completion records."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.records import PlanEntry, VideoRow
from dyntok.store.completion import DONE, PENDING, completed_shards, load_records, plan_digest
from dyntok.store.dataset import DatasetInfo
from dyntok.store.index import ROW_FIELDS, TOKENS_PREFIX, hash_id, index_schema
from dyntok.store.names import INDEX_FILE, sample_key
from dyntok.store.root import StoreRoot, explain_os_error

GROUP_ROWS = 2**16

_Values = tuple[Any, ...]


def build_index(root: StoreRoot, entries: Iterable[PlanEntry]) -> None:
    """Write `index.parquet`: one row per input video, in the order of first attempts.

    A video that was tried again has the row of its latest attempt that has an outcome; one without any outcome is
    `pending`. The same plan and records give the same bytes. Memory stays flat, but for what failed.

    Args:
        entries: every row of the plan, by shard and position; read once.
    """
    info = DatasetInfo.load(root)
    schema = index_schema(info.thresholds)
    scratch = root.scratch_dir() / f"{uuid.uuid4().hex}.index"
    spool = scratch.with_suffix(".rows")
    try:
        with explain_os_error(root.where(INDEX_FILE), "write"):
            _write_parquet(schema, index_batches(root, entries, schema, spool), scratch)
        root.commit_file(scratch, INDEX_FILE)
    finally:
        for path in (scratch, spool):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def index_batches(
    root: StoreRoot, entries: Iterable[PlanEntry], schema: pa.Schema, spool: Path
) -> Iterator[pa.RecordBatch]:
    """The rows of the index, `GROUP_ROWS` at a time. `spool` is a path for a temporary file."""
    newer = _spool_rows(root, entries, schema, spool)
    return _patched_batches(spool, newer, schema)


def _spool_rows(root: StoreRoot, entries: Iterable[PlanEntry], schema: pa.Schema, spool: Path) -> dict[int, _Values]:
    """Rows of all first attempts into a temporary file; returns what later attempts put in their places."""
    unfinished: dict[str, int] = {}
    newer: dict[int, _Values] = {}
    rows: list[_Values] = []
    count = 0
    values_of = _row_values(schema)
    with pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for entry, row in _outcomes(root, entries):
            if entry.attempt > 1 and entry.id in unfinished:
                if row is not None:
                    newer[unfinished[entry.id]] = values_of(entry, row)
                continue
            if row is None or row.status != DONE:
                unfinished[entry.id] = count
            rows.append(values_of(entry, row))
            count += 1
            if len(rows) == GROUP_ROWS:
                writer.write_batch(_batch(rows, schema))
                rows = []
        if rows:
            writer.write_batch(_batch(rows, schema))
    return newer


def _batch(rows: list[_Values], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _outcomes(root: StoreRoot, entries: Iterable[PlanEntry]) -> Iterator[tuple[PlanEntry, VideoRow | None]]:
    """Every plan row with its row of the completion record, None if its shard is not committed."""
    records = load_records(root, completed_shards(root))
    number, record = next(records, (-1, None))
    for shard, group in groupby(entries, key=lambda entry: entry.shard):
        planned = list(group)
        while -1 < number < shard:
            number, record = next(records, (-1, None))
        fits = number == shard and record is not None and record.plan_digest == plan_digest(planned)
        rows = {row.position: row for row in record.videos} if record is not None and fits else {}
        for entry in planned:
            yield entry, rows.get(entry.position)


def _row_values(schema: pa.Schema) -> Callable[[PlanEntry, VideoRow | None], _Values]:
    """What turns a row of the plan and one of a record into values in the order of the schema's columns."""
    thresholds = [n.removeprefix(TOKENS_PREFIX) for n in schema.names if n.startswith(TOKENS_PREFIX)]
    fields = attrgetter(*ROW_FIELDS)
    ours = [*ROW_FIELDS, "shard", "id_hash", *(TOKENS_PREFIX + name for name in thresholds)]
    in_order = itemgetter(*(ours.index(name) for name in schema.names))

    def values(entry: PlanEntry, row: VideoRow | None) -> _Values:
        if row is None:
            key = sample_key(entry.id)
            row = VideoRow(entry.id, key, entry.source, entry.position, PENDING, entry.attempt)
        tokens = [row.tokens.get(name, 0) for name in thresholds]
        made: _Values = in_order((*fields(row), entry.shard, hash_id(entry.id), *tokens))
        return made

    return values


def _patched_batches(spool: Path, newer: dict[int, _Values], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(spool)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            first = number * GROUP_ROWS
            patches = {row - first: new for row, new in newer.items() if first <= row < first + GROUP_ROWS}
            if patches:
                rows = batch.to_pylist()
                for position, values in patches.items():
                    rows[position] = dict(zip(schema.names, values, strict=True))
                batch = pa.RecordBatch.from_pylist(rows, schema=schema)
            yield batch


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd", version="2.6") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch], schema), row_group_size=GROUP_ROWS)
