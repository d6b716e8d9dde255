"""Reads Zarr shards: slices of the shard's arrays, after their metadata were checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from dyntok.errors import DamageError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import level_suffix
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot
from dyntok.store.samples import MAX_JSON_BYTES, VideoHead, head_from, parse_meta
from dyntok.store.tensorfile import Array
from dyntok.store.zarr.access import group_store
from dyntok.store.zarr.format import (
    MAX_META_BYTES,
    ColumnSpec,
    check_array_metadata,
    level_columns,
    video_columns,
)
from dyntok.store.zarr.pipelines import for_reading


class _Column:
    """One array of a group, opened when it is first read."""

    def __init__(self, root: StoreRoot, group: str, store: Store, folder: str, spec: ColumnSpec) -> None:
        self._root, self._store, self._spec = root, store, spec
        self._inside = f"{folder}/{spec.name}" if folder else spec.name
        self._path = f"{group}/{self._inside}"
        self.where = root.where(self._path)
        self._array: zarr.Array[Any] | None = None
        self._rows = 0

    def __len__(self) -> int:
        self._open()
        return self._rows

    def slice(self, begin: int, end: int) -> Array:
        """Rows `begin .. end`, read-only. Raises DamageError if they are not all there, or fail their checksum."""
        array = self._open()
        if not 0 <= begin <= end <= self._rows:
            raise DamageError(f"{self.where} has {self._rows} rows; the shard's splits lead to row {end}")
        with _explain_zarr(self.where):
            rows = np.asarray(array[begin:end])
        rows.flags.writeable = False
        return rows

    def all(self) -> Array:
        return self.slice(0, len(self))

    def _open(self) -> zarr.Array[Any]:
        if self._array is None:
            raw = self._root.read_bytes(f"{self._path}/zarr.json", MAX_META_BYTES)
            with _explain_zarr(self.where):
                self._rows = check_array_metadata(json.loads(raw), self._spec, self.where)
                array = zarr.open_array(self._store, path=self._inside, mode="r", zarr_format=3)
                self._array = for_reading(array)
        return self._array


@contextmanager
def _explain_zarr(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, OSError, zarr.errors.BaseZarrError) as error:
        raise DamageError(f"{where} cannot be read: {error}", hint="run `dyntok verify`") from error


class ZarrShardReader(ShardReader):
    """The videos of a shard share its arrays; prefix sums say which rows are whose."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord) -> None:
        super().__init__(root, info, shard, record)
        column = partial(_Column, root, self._path, group_store(root, self._path))
        self._video = {spec.name: column("", spec) for spec in video_columns(info)}
        folders = ["", *(level_suffix(threshold) for threshold in info.level_thresholds[1:])]
        self._levels = [{spec.name: column(folder, spec) for spec in level_columns(info)} for folder in folders]
        self._splits: dict[_Column, Array] = {}

    def json_edges(self) -> npt.NDArray[np.int64]:
        """`[V + 1]` first byte of each video's JSON in `meta_json`."""
        return self._prefix_sums(self._video["meta_splits"])

    def _read_head(self, video: VideoRow) -> VideoHead:
        where = f"{self._where} ({video.id})"
        first, last = self._range(self._video["meta_splits"], video.row)
        if last - first > MAX_JSON_BYTES:
            raise DamageError(f"{where} has {last - first} bytes of JSON")
        meta = parse_meta(self._video["meta_json"].slice(first, last).tobytes(), where)
        frames = self._range(self._video["frame_splits"], video.row)
        names = ("similarity", "frame_index", "frame_pts")
        similarity, index, seconds = (self._video[name].slice(*frames) for name in names)
        return head_from(meta, similarity, index, seconds, where)

    def _read_count(self, row: int, level: int) -> int:
        first, last = self._tokens_of(row, level)
        return last - first

    def _read_splits(self, row: int, level: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        begin, end = self._tokens_of(row, level)
        columns = self._levels[level]
        first, last = self._grid_rows_of(row)
        splits = columns["row_splits"].slice(first, last + 1) - begin
        if len(splits) and not 0 <= splits.min() <= splits.max() <= end - begin:
            raise DamageError(f"the row splits of {self._where} do not fit its videos")
        scale = columns["token_scale"].slice(begin, end) if "token_scale" in columns else None
        return splits.astype(np.int32), scale

    def _read_group_size(self, row: int, level: int) -> npt.NDArray[np.uint8]:
        return self._levels[level]["group_size"].slice(*self._tokens_of(row, level))

    def _read_tokens(self, row: int, level: int, begin: int, end: int) -> Array:
        first, _ = self._tokens_of(row, level)
        return self._levels[level]["tokens"].slice(first + begin, first + end)

    def _read_markers(self, row: int, level: int) -> npt.NDArray[np.int64]:
        return self._levels[level]["row_marker_index"].slice(*self._grid_rows_of(row))

    def _tokens_of(self, row: int, level: int) -> tuple[int, int]:
        return self._range(self._levels[level]["video_splits"], row)

    def _grid_rows_of(self, row: int) -> tuple[int, int]:
        first, last = self._range(self._video["frame_splits"], row)
        return first * self._info.grid.rows, last * self._info.grid.rows

    def _range(self, column: _Column, row: int) -> tuple[int, int]:
        """The rows of a video in the arrays that `column` splits."""
        splits = self._prefix_sums(column)
        return int(splits[row]), int(splits[row + 1])

    def _prefix_sums(self, column: _Column) -> Array:
        """All of them, checked, and read once."""
        if column not in self._splits:
            splits = column.all()
            if len(splits) != len(self._rows) + 1 or splits[0] != 0 or (np.diff(splits) < 0).any():
                raise DamageError(f"{column.where} holds no prefix sums of {len(self._rows)} videos")
            self._splits[column] = splits
        return self._splits[column]
