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

from dyntok.errors import DamageError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import level_suffix, shard_data_path
from dyntok.store.reader import (
    FrameChoice,
    check_explicit,
    check_files,
    check_head,
    check_level,
    check_row,
    frame_edges,
    frame_positions,
    level_of_frames,
    take_frames,
)
from dyntok.store.root import StoreRoot
from dyntok.store.samples import (
    MAX_JSON_BYTES,
    LevelGroups,
    StoredLevel,
    StoredVideo,
    VideoHead,
    head_from,
    parse_meta,
)
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


class _Group:
    """The group of a shard; its columns share one zarr store."""

    def __init__(self, root: StoreRoot, path: str) -> None:
        self.root, self.path = root, path
        self.zarr = group_store(root, path)


class _Column:
    """One array on disk, opened when it is first read."""

    def __init__(self, group: _Group, folder: str, spec: ColumnSpec) -> None:
        self._group, self._spec = group, spec
        self._path = f"{folder}/{spec.name}" if folder else spec.name
        self.where = group.root.where(f"{group.path}/{self._path}")
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
            path = f"{self._group.path}/{self._path}/zarr.json"
            raw = self._group.root.read_bytes(path, MAX_META_BYTES)
            with _explain_zarr(self.where):
                self._rows = check_array_metadata(json.loads(raw), self._spec, self.where)
                array = zarr.open_array(self._group.zarr, path=self._path, mode="r", zarr_format=3)
                self._array = for_reading(array)
        return self._array


@contextmanager
def _explain_zarr(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, OSError, zarr.errors.BaseZarrError) as error:
        raise DamageError(f"{where} cannot be read: {error}", hint="run `dyntok verify`") from error


class ZarrShardReader:
    """See `ShardReader`."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord) -> None:
        check_files(root, info, record)
        self._info = info
        self._rows = record.done
        group = _Group(root, shard_data_path(shard, "zarr"))
        self._where = root.where(group.path)
        self._video = {spec.name: _Column(group, "", spec) for spec in video_columns(info)}
        folders = ["", *(level_suffix(threshold) for threshold in info.level_thresholds[1:])]
        self._levels = [
            {spec.name: _Column(group, folder, spec) for spec in level_columns(info)} for folder in folders
        ]
        self._splits: dict[str, Array] = {}
        self._opened: tuple[int, VideoHead] | None = None

    @property
    def rows(self) -> tuple[VideoRow, ...]:
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def head(self, row: int, frames: FrameChoice | None = None) -> VideoHead:
        if self._opened is None or self._opened[0] != row:
            self._opened = row, self._read_head(row)
        head = self._opened[1]
        if frames is None:
            return head
        return take_frames(head, frame_positions(frames, head.frame_count, head.id))

    def groups(self, row: int, level: int = 0) -> LevelGroups:
        begin, end = self._token_range(row, level)
        columns = self._levels[level]
        first, last = (edge * self._info.grid.rows for edge in self._edges("frame_splits", self._video, row))
        splits = columns["row_splits"].slice(first, last + 1) - begin
        if len(splits) and not 0 <= splits.min() <= splits.max() <= end - begin:
            raise DamageError(f"the row splits of {self._where} do not fit its videos")
        scale = columns["token_scale"].slice(begin, end) if "token_scale" in columns else None
        return LevelGroups(
            check_level(self._info, level),
            columns["group_size"].slice(begin, end),
            splits.astype(np.int32),
            scale,
        )

    def level(self, row: int, level: int = 0, frames: FrameChoice | None = None) -> StoredLevel:
        head = self.head(row)
        groups = self.groups(row, level)
        begin, end = self._token_range(row, level)
        if frames is not None:
            positions = frame_positions(frames, head.frame_count, head.id)
            fetch = partial(self._tokens, level, begin)
            return level_of_frames(head, groups, end - begin, positions, fetch)
        frame_edges(groups.row_splits, head, end - begin)
        tokens = self._tokens(level, begin, 0, end - begin)
        return StoredLevel(groups.threshold, tokens, groups.group_size, groups.row_splits, groups.token_scale)

    def read(self, row: int, frames: FrameChoice | None = None) -> StoredVideo:
        head = self.head(row, frames)
        return StoredVideo(
            head, tuple(self.level(row, number, frames) for number in range(len(head.thresholds)))
        )

    def row_marker_index(self, row: int, level: int = 0) -> npt.NDArray[np.int64]:
        check_explicit(self._info)
        check_level(self._info, level)
        first, last = (edge * self._info.grid.rows for edge in self._edges("frame_splits", self._video, row))
        return self._levels[level]["row_marker_index"].slice(first, last)

    def token_chunks(self, row: int, level: int = 0, chunk_rows: int = 2048) -> Iterator[Array]:
        first, last = self._token_range(row, level)
        for begin in range(first, last, chunk_rows):
            yield self._levels[level]["tokens"].slice(begin, min(begin + chunk_rows, last))

    # parts --------------------------------------------------------------------------------------------------

    def _read_head(self, row: int) -> VideoHead:
        video = check_row(self._rows, row)
        where = f"{self._where} ({video.id})"
        first, last = self._edges("meta_splits", self._video, row)
        if last - first > MAX_JSON_BYTES:
            raise DamageError(f"{where} has {last - first} bytes of JSON")
        meta = parse_meta(self._video["meta_json"].slice(first, last).tobytes(), where)
        first, last = self._edges("frame_splits", self._video, row)
        similarity = self._video["similarity"].slice(first, last)
        index = self._video["frame_index"].slice(first, last)
        seconds = self._video["frame_pts"].slice(first, last)
        return check_head(head_from(meta, similarity, index, seconds, where), self._info, video)

    def _tokens(self, level: int, offset: int, begin: int, end: int) -> Array:
        return self._levels[level]["tokens"].slice(offset + begin, offset + end)

    def _token_range(self, row: int, level: int) -> tuple[int, int]:
        check_level(self._info, level)
        return self._edges("video_splits", self._levels[level], row, f"{level}")

    def _edges(self, name: str, columns: dict[str, _Column], row: int, tag: str = "") -> tuple[int, int]:
        """The range of a video in arrays that `name` splits."""
        check_row(self._rows, row)
        splits = self._prefix_sums(name, columns, tag)
        return int(splits[row]), int(splits[row + 1])

    def json_edges(self) -> npt.NDArray[np.int64]:
        """`[V + 1]` first byte of each video's JSON in `meta_json`."""
        return self._prefix_sums("meta_splits", self._video)

    def _prefix_sums(self, name: str, columns: dict[str, _Column], tag: str = "") -> Array:
        splits = self._splits.get(name + tag)
        if splits is None:
            splits = columns[name].all()
            if len(splits) != len(self._rows) + 1 or splits[0] != 0 or (np.diff(splits) < 0).any():
                raise DamageError(f"{columns[name].where} holds no prefix sums of {len(self._rows)} videos")
            self._splits[name + tag] = splits
        return splits
