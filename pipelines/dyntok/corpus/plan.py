"""Read access to `plan.parquet`: which videos make up which shard."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dyntok.corpus import access
from dyntok.corpus.digests import DigestTable, digests_of
from dyntok.errors import DamageError, StoreError
from dyntok.plan_schema import check_schema, entries_of
from dyntok.records import PlanEntry

_CACHED_GROUPS = 2


class FrozenPlan:
    """A frozen plan. Rows stay in the file (memory-mapped when local) and are decoded by row group.

    A shard is a contiguous range of rows; shards are numbered from 0, without gaps. An id has one row for its first
    attempt and one more, in a later shard, for each retry.
    """

    def __init__(self, parquet: pq.ParquetFile, name: str) -> None:
        self._parquet = parquet
        self._name = name
        self._lock = threading.Lock()
        self._groups: dict[int, pa.Table] = {}
        check_schema(parquet.schema_arrow, name)
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        columns = parquet.read(columns=["shard", "attempt"])
        shard = columns["shard"].to_numpy()
        steps = np.diff(shard)
        if not len(shard) or shard[0] != 0 or ((steps != 0) & (steps != 1)).any():
            raise DamageError(f"{name}: the shards of the plan are not in order", hint="restore the file")
        self._shard_starts = np.concatenate([[0], np.flatnonzero(steps) + 1, [len(shard)]])
        self.rows = len(shard)
        self.videos = int(np.count_nonzero(columns["attempt"].to_numpy() == 1))

    @classmethod
    def open(cls, source: str | os.PathLike[str] | bytes | BinaryIO) -> FrozenPlan:
        """Open a plan by path, fsspec URL, file object or content.

        Raises `DamageError` for what is no plan, `StoreVersionError` for a newer one, `StoreError` if it cannot
        be read.
        """
        name, where = "plan.parquet", source
        try:
            if isinstance(source, bytes):
                where = pa.BufferReader(source)
            elif isinstance(source, (str, os.PathLike)):
                path = os.fspath(source)
                name = access.redact(path)
                where = path if access.url_protocol(path) is None else access.open_binary(path)
            return cls(pq.ParquetFile(where, memory_map=isinstance(where, str)), name)
        except pa.ArrowException as error:
            raise DamageError(f"{name} is no readable plan: {error}", hint="restore the file") from error
        except access.READ_ERRORS as error:
            raise StoreError(f"cannot read {name}: {access.describe(error)}", hint="check the path") from error

    def close(self) -> None:
        """Let go of the file."""
        self._groups.clear()
        self._parquet.close()

    def __enter__(self) -> FrozenPlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shard_numbers(self) -> range:
        """The numbers of the shards."""
        return range(self.shards)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._shard_starts) - 1

    def shard_rows(self) -> npt.NDArray[np.int64]:
        """How many videos each shard has, in order of the shards."""
        return np.diff(self._shard_starts)

    def shard(self, shard: int) -> list[PlanEntry]:
        """The entries of a shard in order of position. Raises `IndexError` for a shard that is not there."""
        if shard not in self.shard_numbers:
            raise IndexError(f"the plan has shards {self.shard_numbers}, not {shard}")
        start, stop = self._shard_starts[shard : shard + 2]
        entries = self._rows(int(start), int(stop))
        if [entry.position for entry in entries] != list(range(len(entries))):
            raise DamageError(f"{self._name}: the positions in shard {shard} are not in order")
        return entries

    def entry(self, row: int) -> PlanEntry:
        """One row."""
        return self._rows(row, row + 1)[0]

    def entries(self) -> Iterator[PlanEntry]:
        """Every row, in order."""
        for start, stop in zip(self._group_starts[:-1], self._group_starts[1:], strict=True):
            yield from self._rows(int(start), int(stop))

    def latest_attempts(self) -> Iterator[PlanEntry]:
        """One entry an id, in order of the plan: that of the highest attempt. Memory grows with the retries."""
        attempts = self.retried()
        return (entry for entry in self.entries() if entry.attempt == attempts.get(entry.id, 1))

    def retried(self) -> dict[str, int]:
        """The highest attempt of each id that has more than one."""
        attempts: dict[str, int] = {}
        for batch in self.column_batches("id", "attempt"):
            retried = batch.filter(pc.greater(batch["attempt"], 1))
            for video_id, attempt in zip(*(column.to_pylist() for column in retried.columns), strict=True):
                attempts[video_id] = max(attempt, attempts.get(video_id, 1))
        return attempts

    def latest_rows(self) -> DigestTable:
        """The row of the latest attempt of every planned id."""
        parts = [digests_of(batch["id"].to_pylist()) for batch in self.column_batches("id")]
        return DigestTable(np.concatenate(parts))

    def column_batches(self, *names: str) -> Iterator[pa.Table]:
        """Some columns, row group by row group."""
        for group in range(self._parquet.num_row_groups):
            with self._lock:
                table = self._parquet.read_row_group(group, columns=list(names))
            yield table.select(list(names))

    def groups(self) -> Iterator[pa.Table]:
        """Whole row groups, as they were written."""
        for group in range(self._parquet.num_row_groups):
            yield self._group(group)

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            table = self._groups.pop(group, None)
            if table is None:
                table = self._parquet.read_row_group(group)
            self._groups[group] = table
            while len(self._groups) > _CACHED_GROUPS:
                del self._groups[next(iter(self._groups))]
            return table

    def _rows(self, start: int, stop: int) -> list[PlanEntry]:
        entries: list[PlanEntry] = []
        while start < stop:
            group = int(np.searchsorted(self._group_starts, start, side="right")) - 1
            low, high = int(self._group_starts[group]), int(self._group_starts[group + 1])
            entries += entries_of(self._group(group).slice(start - low, min(stop, high) - start))
            start = min(stop, high)
        return entries
