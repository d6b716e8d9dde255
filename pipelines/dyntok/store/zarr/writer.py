"""Zarr shards: one group, written in whole chunks, so that memory stays flat."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from dyntok.durable import begin_write_out_path
from dyntok.records import FileDigest, Level, Sample
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import FORMAT_VERSION, level_suffix
from dyntok.store.root import StoreRoot
from dyntok.store.samples import checked_chunks, marker_index, meta_json
from dyntok.store.signed import digest_bytes, digest_path
from dyntok.store.tensorfile import Array
from dyntok.store.writer import ShardWriter, Written
from dyntok.store.zarr.format import ColumnSpec, codecs, level_columns, video_columns
from dyntok.store.zarr.pipelines import for_writing

_LARGE_BYTES = 2**18


class _HashedFolder(LocalStore):
    """A folder that knows the digests of its large files: they are hashed while they are written, each as a whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._digests: dict[str, FileDigest] = {}

    async def set(self, key: str, value: Buffer) -> None:
        if len(value) < _LARGE_BYTES:
            await super().set(key, value)
            return
        data = value.as_buffer_like()
        digest, _ = await asyncio.gather(asyncio.to_thread(digest_bytes, key, data), super().set(key, value))
        await asyncio.to_thread(begin_write_out_path, self.root / key)
        self._digests[key] = digest

    def files(self, path: str) -> tuple[FileDigest, ...]:
        """Digests of what is there, in order, for a folder that will be `path` in the store."""
        files = {file.relative_to(self.root).as_posix(): file for file in self.root.rglob("*") if file.is_file()}
        return tuple(self._digest(key, files[key], f"{path}/{key}") for key in sorted(files))

    def _digest(self, key: str, file: Path, path: str) -> FileDigest:
        known = self._digests.get(key)
        if known is None or known.bytes != file.stat().st_size:
            return digest_path(file, path)
        return replace(known, path=path)


class _Column:
    """An array that grows by rows. It is written one whole Zarr shard at a time; the rest waits in memory."""

    def __init__(self, group: zarr.Group, spec: ColumnSpec, attributes: dict[str, Any]) -> None:
        self.spec = spec
        array = group.create_array(
            spec.name,
            shape=(0, *spec.row_shape),
            dtype=spec.dtype,
            chunks=(spec.chunk_rows, *spec.row_shape),
            shards=(spec.shard_rows, *spec.row_shape),
            compressors=codecs(spec),
            filters=None,
            fill_value=0,
            attributes=attributes,
            dimension_names=spec.dimensions,
            config={"write_empty_chunks": True},
        )
        self._array = for_writing(array)
        self._written = 0
        # Takes memory only as far as it is filled; the next Zarr shard goes into the same.
        self._buffer = np.empty((spec.shard_rows, *spec.row_shape), spec.dtype)
        self._waiting = 0

    def __len__(self) -> int:
        return self._written + self._waiting

    def append(self, rows: Array) -> None:
        while len(rows):
            part = rows[: self.spec.shard_rows - self._waiting]
            self._buffer[self._waiting : self._waiting + len(part)] = part
            self._waiting += len(part)
            rows = rows[len(part) :]
            if self._waiting == self.spec.shard_rows:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        self._array.resize((self._written + self._waiting, *self.spec.row_shape))
        self._array[self._written :] = self._buffer[: self._waiting]
        self._written += self._waiting
        self._waiting = 0

    def truncate(self, count: int) -> None:
        """Drop every row from `count` on; the rows of a Zarr shard that is now partial wait again."""
        if count < self._written:
            whole = count // self.spec.shard_rows * self.spec.shard_rows
            self._buffer[: count - whole] = self._array[whole:count]
            self._array.resize((whole, *self.spec.row_shape))
            self._written = whole
        self._waiting = count - self._written


class ZarrShardWriter(ShardWriter):
    """See `format` for the arrays."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, *, statistics: bool = True) -> None:
        super().__init__(root, info, shard, statistics=statistics)
        self._bytes = 0
        with self._explained("write"):
            self._folder = _HashedFolder(self._temporary)
            group = zarr.create_group(self._folder, attributes=self._group_attributes())
            self._video = {spec.name: _Column(group, spec, {}) for spec in video_columns(info)}
            self._levels = []
            for index, threshold in enumerate(info.level_thresholds):
                attributes = {"threshold": threshold}
                where = group.create_group(level_suffix(threshold), attributes=attributes) if index else group
                self._levels.append(
                    {spec.name: _Column(where, spec, self._attributes(spec)) for spec in level_columns(info)}
                )
            parts = (self._video, *self._levels)
            self._columns = [column for part in parts for column in part.values()]
            for column in self._columns:
                if column.spec.name.endswith("_splits"):
                    column.append(np.zeros(1, np.int64))

    def _group_attributes(self) -> dict[str, Any]:
        info = self._info
        return {
            "format": "dyntok",
            "format_version": FORMAT_VERSION,
            "grid": {"rows": info.grid.rows, "cols": info.grid.cols},
            "threshold": info.stored_threshold,
            "logical_dtype": info.dtype,
        }

    def _attributes(self, spec: ColumnSpec) -> dict[str, Any]:
        return {"logical_dtype": self._info.dtype} if spec.name == "tokens" else {}

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def _undo(self) -> Callable[[], None]:
        marks, size = [len(column) for column in self._columns], self._bytes

        def undo() -> None:
            for column, mark in zip(self._columns, marks, strict=True):
                column.truncate(mark)
            self._bytes = size

        return undo

    def _close(self) -> tuple[FileDigest, ...]:
        for column in self._columns:
            column.flush()
        return self._folder.files(self._path)

    def _drop(self) -> None:
        if self._temporary.exists():
            shutil.rmtree(self._temporary)

    def _write(self, sample: Sample) -> Written:
        tokens = self._levels[0]["tokens"]
        first = len(tokens)
        meta = np.frombuffer(meta_json(sample), np.uint8)
        self._append(self._video, "meta_json", meta)
        self._append(self._video, "meta_splits", np.array([len(self._video["meta_json"])]))
        self._append(self._video, "similarity", sample.similarity)
        self._append(self._video, "frame_index", sample.frames.frame_index)
        self._append(self._video, "frame_pts", sample.frames.frame_pts)
        self._append(self._video, "frame_splits", np.array([len(self._video["similarity"])]))
        for columns, level in zip(self._levels, sample.levels, strict=True):
            self._write_level(sample, columns, level)
        return Written(first, (len(tokens) - first) * tokens.spec.row_bytes)

    def _write_level(self, sample: Sample, columns: dict[str, _Column], level: Level) -> None:
        first = len(columns["tokens"])
        for chunk in checked_chunks(sample, level):
            self._append(columns, "tokens", chunk)
        self._append(columns, "group_size", level.group_size)
        self._append(columns, "row_splits", level.row_splits[1:].astype(np.int64) + first)
        self._append(columns, "video_splits", np.array([len(columns["tokens"])]))
        if level.token_scale is not None:
            self._append(columns, "token_scale", level.token_scale)
        if "row_marker_index" in columns:
            self._append(columns, "row_marker_index", marker_index(level.row_splits))

    def _append(self, columns: dict[str, _Column], name: str, rows: Array) -> None:
        columns[name].append(rows)
        self._bytes += rows.nbytes
