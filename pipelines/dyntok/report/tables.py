"""Statistics as Parquet tables, for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.errors import StoreError, UsageError
from dyntok.report.gather import StoreStatistics
from dyntok.stats.totals import TOKENS_PREFIX
from dyntok.store import StoreIndex
from dyntok.store.index import COLUMNS

_SHOWN = (
    *("id", "source", "status", "error_class", "error", "shard"),
    *("frames", "seconds", "patches", "nbytes", "decoder"),
)


def write_tables(statistics: Sequence[StoreStatistics], path: str) -> tuple[str, str]:
    """Write one row for each video to `path`, and the curve of tokens against threshold beside it.

    Args:
        path: of the table of videos, ending in `.parquet`; the curve goes to `NAME.curve.parquet`. Both have a column
            `store`. A column `tokens_...` is null for a store that is not configured for that threshold.

    Returns:
        The paths of both files.

    Raises UsageError for another suffix, StoreError where writing fails.
    """
    if not path.endswith(".parquet"):
        raise UsageError(f"{path} does not end in .parquet", hint=f"--parquet {path}.parquet")
    curve_path = str(Path(path).with_suffix(".curve.parquet"))
    try:
        _write_videos(statistics, path)
        _write_curve(statistics, curve_path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return path, curve_path


def _write_videos(statistics: Sequence[StoreStatistics], path: str) -> None:
    names = sorted({name for found in statistics for name in found.videos.names}, key=float)
    tokens = {TOKENS_PREFIX + name: pa.int64() for name in names}
    schema = pa.schema({"store": pa.string(), **{name: COLUMNS[name] for name in _SHOWN}, **tokens})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for found in statistics:
            for batch in StoreIndex.open(found.root).batches():
                columns = {name: pa.nulls(batch.num_rows, schema.field(name).type) for name in schema.names}
                columns |= {name: batch.column(name) for name in schema.names if name in batch.schema.names}
                columns["store"] = pa.array([found.root.url] * batch.num_rows)
                writer.write_table(pa.table(columns, schema))


def _write_curve(statistics: Sequence[StoreStatistics], path: str) -> None:
    tables = []
    for found in statistics:
        edges = found.maps.shape.edges
        columns = {
            "store": [found.root.url] * len(edges),
            "threshold": pa.array(edges, pa.float64()),
            "tokens": pa.array(found.maps.curve(), pa.int64()),
            "patches": pa.array([found.maps.patches] * len(edges), pa.int64()),
            "similarities": pa.array(found.maps.similarity, pa.int64()),
        }
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")
