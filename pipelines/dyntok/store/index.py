"""Reading `index.parquet`: one row per input video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dyntok.errors import DamageError, StoreError, StoreVersionError
from dyntok.objects import ObjectStoreError
from dyntok.records import VideoRow
from dyntok.store.completion import DONE
from dyntok.store.names import FORMAT_VERSION, INDEX_FILE, threshold_name
from dyntok.store.root import StoreRoot, store_error

VERSION_KEY = b"dyntok.format_version"
TOKENS_PREFIX = "tokens_"
COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "status": pa.string(),
    "error_class": pa.string(),
    "error": pa.string(),
    "shard": pa.int32(),
    "row": pa.int32(),
    "position": pa.int32(),
    "attempt": pa.int16(),
    "offset": pa.int64(),
    "nbytes": pa.int64(),
    "frames": pa.int64(),
    "seconds": pa.float64(),
    "patches": pa.int64(),
    "source": pa.string(),
    "key": pa.string(),
    "decoder": pa.string(),
    "id_hash": pa.uint64(),
}
ROW_FIELDS = [name for name in COLUMNS if name not in ("shard", "id_hash")]


def index_schema(thresholds: tuple[float, ...]) -> pa.Schema:
    """Columns of the index: those of a record's row, `shard`, `id_hash`, and `tokens_0.40` for every threshold."""
    columns = COLUMNS | {TOKENS_PREFIX + threshold_name(threshold): pa.int64() for threshold in thresholds}
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, metadata={VERSION_KEY: str(FORMAT_VERSION).encode()})


def hash_id(video_id: str) -> int:
    """The 64-bit hash by which the index is searched (XXH3 of the UTF-8 id)."""
    return xxhash.xxh3_64_intdigest(video_id.encode("utf-8"))


class StoreIndex:
    """`index.parquet`, opened lazily: a column is read when it is first asked for, and no Python object is made
    per row.

    Positions 0 .. len - 1 are those of the input videos in the order of the plan.
    """

    def __init__(self, root: StoreRoot) -> None:
        self._root = root
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._numbers: dict[str, npt.NDArray[Any]] = {}
        self._order: npt.NDArray[np.int64] | None = None
        self._sorted_hash: npt.NDArray[np.uint64] | None = None
        self._group: tuple[int, pa.Table] | None = None
        with self._parquet() as file:
            self.schema: pa.Schema = file.schema_arrow
            self._group_rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._check_schema()

    @classmethod
    def open(cls, root: StoreRoot) -> StoreIndex:
        """Open the index of a store.

        Raises:
            StoreError: there is none.
            StoreVersionError: a newer dyntok wrote it.
            DamageError: it is not readable, or lacks a column.
        """
        if not root.exists(INDEX_FILE):
            raise StoreError(
                f"{root.url} has no {INDEX_FILE}: its run is not complete",
                hint="run the same `dyntok encode` command again to finish the store",
            )
        return cls(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreIndex.open, (self._root,)

    def __len__(self) -> int:
        return sum(self._group_rows)

    @property
    def ids(self) -> pa.ChunkedArray:
        """Every id (Arrow strings), by position."""
        return self.column("id")

    @property
    def done(self) -> npt.NDArray[np.int64]:
        """Positions of the videos that the store holds."""
        return np.flatnonzero(self.numbers("row") >= 0)

    @property
    def thresholds(self) -> tuple[str, ...]:
        """Names of the thresholds that have a `tokens_*` column."""
        names = (name for name in self.schema.names if name.startswith(TOKENS_PREFIX))
        return tuple(name.removeprefix(TOKENS_PREFIX) for name in names)

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, kept in memory, in one chunk per group of rows. Raises KeyError if there is none."""
        if name not in self._columns:
            if name not in self.schema.names:
                raise KeyError(name)
            with self._parquet() as file, explain_parquet(self._root.where(INDEX_FILE)):
                chunks = [
                    file.read_row_group(number, columns=[name], use_threads=False).column(0)
                    for number in range(file.num_row_groups)
                ]
                kind = self.schema.field(name).type
                joined = pa.chunked_array([chunk for column in chunks for chunk in column.chunks], kind)
                self._columns[name] = joined
            pa.default_memory_pool().release_unused()  # else decoding keeps about as much again
        return self._columns[name]

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """A numeric column as one numpy array."""
        if name not in self._numbers:
            self._numbers[name] = self.column(name).to_numpy()
            self._numbers[name].flags.writeable = False
            del self._columns[name]
        return self._numbers[name]

    def position(self, video_id: str) -> int:
        """Position of an id. Raises KeyError if the store does not know it."""
        if self._sorted_hash is None or self._order is None:
            hashes = self.numbers("id_hash")
            self._order = np.argsort(hashes, kind="stable")
            self._sorted_hash = hashes[self._order]
        value = np.uint64(hash_id(video_id))
        first = int(np.searchsorted(self._sorted_hash, value))
        while first < len(self._order) and self._sorted_hash[first] == value:
            candidate = int(self._order[first])
            if self.ids[candidate].as_py() == video_id:
                return candidate
            first += 1
        raise KeyError(video_id)

    def row(self, position: int) -> tuple[int, VideoRow]:
        """Shard and record row of one video, without its checksum. Reads its group of rows; for many, take columns."""
        if not 0 <= position < len(self):
            raise IndexError(f"the store has {len(self)} videos, asked for {position}")
        starts = np.cumsum([0, *self._group_rows])
        number = int(np.searchsorted(starts, position, side="right")) - 1
        if self._group is None or self._group[0] != number:
            with self._parquet() as file, explain_parquet(self._root.where(INDEX_FILE)):
                self._group = number, file.read_row_group(number)
        values = self._group[1].slice(position - int(starts[number]), 1).to_pylist()[0]
        tokens = {name: values[TOKENS_PREFIX + name] for name in self.thresholds}
        row = VideoRow(**{name: values[name] for name in ROW_FIELDS})
        return values["shard"], replace(row, tokens=tokens if row.status == DONE else {})

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, a group at a time; nothing is kept."""
        with self._parquet() as file, explain_parquet(self._root.where(INDEX_FILE)):
            for number in range(file.num_row_groups):
                yield from file.read_row_group(number, columns=columns).combine_chunks().to_batches()

    def _parquet(self) -> pq.ParquetFile:
        with explain_parquet(self._root.where(INDEX_FILE)):
            return pq.ParquetFile(self._root.seekable(INDEX_FILE), memory_map=self._root.is_local)

    def _check_schema(self) -> None:
        version = (self.schema.metadata or {}).get(VERSION_KEY, b"").decode("ascii", "replace")
        where = self._root.where(INDEX_FILE)
        if version.isdecimal() and int(version) > FORMAT_VERSION:
            raise StoreVersionError(
                f"{where} is of format {version}; this dyntok reads formats up to {FORMAT_VERSION}",
                hint="pip install --upgrade dyntok",
            )
        for name, kind in COLUMNS.items():
            if name not in self.schema.names or self.schema.field(name).type != kind:
                raise DamageError(f"{where} has no column {name} of {kind}")


@contextmanager
def explain_parquet(where: str) -> Iterator[None]:
    """In here an Arrow, system or Unicode error means a damaged file. Raises DamageError.

    An object store that cannot be asked says nothing of the file: StoreError.
    """
    try:
        yield
    except ObjectStoreError as error:
        raise store_error(error, where, "read") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamageError(f"{where} cannot be read: {error}", hint="run `dyntok verify`") from error
