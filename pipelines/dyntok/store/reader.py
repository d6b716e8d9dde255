"""Reading one shard, whatever its format: heads without tokens, any frames, whole levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import groups_of
from dyntok.errors import DamageError, UsageError
from dyntok.records import Level, Sample, SampledFrames, VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import shard_data_path
from dyntok.store.root import StoreRoot
from dyntok.store.samples import LevelGroups, StoredLevel, VideoHead
from dyntok.store.tensorfile import Array

FrameChoice = Sequence[int] | npt.NDArray[np.integer]


class ShardReader(ABC):
    """Random access to the videos of a shard by `row`, 0 .. len - 1. Safe to use from one thread at a time.

    Arrays are read-only. Those of a local tar are views of the memory-mapped file (`as_torch` shares them further);
    others are copies. `frames` are positions among the stored frames, in any order, duplicates allowed; only the
    bytes of these frames are read.

    All methods raise DamageError where bytes are not what the format says, UsageError for a frame that is not there.

    A format fills in where the parts of a video lie: the methods that begin with `_read`, for rows and levels that are
    there.
    """

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord) -> None:
        self._info = info
        self._rows = record.done
        self._path = shard_data_path(shard, info.shard_format)
        self._where = root.where(self._path)
        self._last: tuple[int, VideoHead] | None = None
        _check_files(root, info, record)

    @property
    def rows(self) -> tuple[VideoRow, ...]:
        """The completion record's rows of the videos held, by `row`."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def head(self, row: int, frames: FrameChoice | None = None) -> VideoHead:
        """Everything but tokens."""
        video = self._row(row)
        if self._last is None or self._last[0] != row:
            self._last = None  # what a format keeps of the video before is overwritten from here on
            self._last = row, _check_head(self._read_head(video), self._info, video)
        head = self._last[1]
        if frames is None:
            return head
        chosen = _frame_positions(frames, head)
        index, pts = (_frozen(array[chosen]) for array in (head.frames.frame_index, head.frames.frame_pts))
        return replace(head, similarity=_frozen(head.similarity[chosen]), frames=SampledFrames(index, pts))

    def level(self, row: int, level: int = 0, frames: FrameChoice | None = None) -> StoredLevel:
        """Tokens of one stored level; 0 is the finest."""
        head, threshold = self.head(row), self._threshold(level)
        row_splits, scale = self._read_splits(row, level)
        edges = _frame_edges(row_splits, head, self._read_count(row, level))
        if frames is None:
            tokens, group_size = self._read_whole(row, level)
            return StoredLevel(threshold, tokens, group_size, row_splits, scale)
        chosen = _frame_positions(frames, head)
        spans = [(int(edges[start]), int(edges[stop])) for start, stop in _frame_runs(chosen)]
        parts = [self._read_tokens(row, level, begin, end) for begin, end in spans]
        tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
        group_size, row_splits = groups_of(head.similarity[chosen], threshold)
        if len(tokens) != len(group_size):
            raise DamageError(f"the row splits of {head.id!r} contradict its similarity map")
        if scale is not None:
            scale = np.concatenate([scale[begin:end] for begin, end in spans])
        return StoredLevel(threshold, tokens, group_size, row_splits, scale)

    def groups(self, row: int, level: int = 0) -> LevelGroups:
        """A stored level without its tokens."""
        self._row(row)
        threshold = self._threshold(level)
        row_splits, scale = self._read_splits(row, level)
        return LevelGroups(threshold, self._read_group_size(row, level), row_splits, scale)

    def row_marker_index(self, row: int, level: int = 0) -> npt.NDArray[np.int64]:
        """The level's `[T*R]` as the explicit layout stores it; UsageError in the nested layout."""
        if self._info.layout != "explicit":
            raise UsageError("only the explicit layout stores row_marker_index; it follows from row_splits")
        self._row(row)
        self._threshold(level)
        return self._read_markers(row, level)

    def token_chunks(self, row: int, level: int = 0, chunk_rows: int = 2048) -> Iterator[Array]:
        """Tokens of a level in pieces of at most `chunk_rows`, for samples larger than memory."""
        self._row(row)
        self._threshold(level)
        count = self._read_count(row, level)
        for begin in range(0, count, chunk_rows):
            yield self._read_tokens(row, level, begin, min(begin + chunk_rows, count))

    def _row(self, row: int) -> VideoRow:
        if not 0 <= row < len(self._rows):
            raise UsageError(f"the shard holds rows 0 to {len(self._rows) - 1}, asked for {row}")
        return self._rows[row]

    def _threshold(self, level: int) -> float:
        thresholds = self._info.level_thresholds
        if not 0 <= level < len(thresholds):
            raise UsageError(f"the store holds levels 0 to {len(thresholds) - 1}, asked for {level}")
        return thresholds[level]

    # what a format fills in -----------------------------------------------------------------------------------

    @abstractmethod
    def _read_head(self, video: VideoRow) -> VideoHead:
        """Asked anew when another video is; whether it is the one that the record names is checked by the caller."""

    @abstractmethod
    def _read_count(self, row: int, level: int) -> int:
        """N, the tokens of a level."""

    @abstractmethod
    def _read_splits(self, row: int, level: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        """`row_splits [T*R + 1]` from 0, and `token_scale [N]` of int8 tokens."""

    @abstractmethod
    def _read_group_size(self, row: int, level: int) -> npt.NDArray[np.uint8]:
        """`[N]`."""

    @abstractmethod
    def _read_tokens(self, row: int, level: int, begin: int, end: int) -> Array:
        """Tokens `begin .. end` of a level, `[end - begin, D]`."""

    def _read_whole(self, row: int, level: int) -> tuple[Array, npt.NDArray[np.uint8]]:
        """Tokens and group sizes of a level."""
        tokens = self._read_tokens(row, level, 0, self._read_count(row, level))
        return tokens, self._read_group_size(row, level)

    @abstractmethod
    def _read_markers(self, row: int, level: int) -> npt.NDArray[np.int64]:
        """`row_marker_index [T*R]`."""


def _check_files(root: StoreRoot, info: DatasetInfo, record: CompletionRecord) -> None:
    """Raise DamageError unless every data file of the record is there with its size. Contents are not read."""
    path = shard_data_path(record.shard, info.shard_format)
    # A folder is listed in one request.
    found = root.sizes(path) if info.shard_format == "zarr" else {path: root.size(path)}
    for file in record.data_files:
        if found.get(file.path) != file.bytes:
            state = "is missing" if file.path not in found else f"has {found[file.path]} bytes"
            raise DamageError(
                f"{root.where(file.path)} {state}; {file.bytes} bytes were written",
                hint="`dyntok verify` lists all damage; copy the file again or encode the shard anew",
            )


def sample_of(reader: ShardReader, row: int) -> Sample:
    """The sample as it went into the writer, tokens in chunks; for copying between formats."""
    head = reader.head(row)
    levels = tuple(_streamed_level(reader, row, number) for number in range(len(head.thresholds)))
    return Sample(
        key=head.key,
        id=head.id,
        grid=head.grid,
        token_dim=head.token_dim,
        dtype=head.dtype,
        similarity=head.similarity,
        frames=head.frames,
        levels=levels,
        meta=head.meta,
    )


def _streamed_level(reader: ShardReader, row: int, number: int) -> Level:
    parts = reader.groups(row, number)
    return Level(
        threshold=parts.threshold,
        token_count=len(parts.group_size),
        tokens=reader.token_chunks(row, number),
        group_size=parts.group_size,
        row_splits=parts.row_splits,
        token_scale=parts.token_scale,
    )


def _frame_positions(frames: FrameChoice, head: VideoHead) -> npt.NDArray[np.int64]:
    """`frames` as int64 positions. Raises UsageError for one outside 0 .. T - 1, or for none at all."""
    positions = np.asarray(frames)
    if positions.ndim != 1 or not len(positions) or positions.dtype.kind not in "iu":
        raise UsageError(f"frames of {head.id!r} must be a non-empty list of integers")
    if positions.min() < 0 or positions.max() >= head.frame_count:
        raise UsageError(f"{head.id!r} has frames 0 to {head.frame_count - 1}; asked for {positions.tolist()}")
    return positions.astype(np.int64)


def _frame_runs(positions: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Maximal runs of consecutive positions as (start, stop)."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    starts = positions[np.concatenate([[0], breaks])]
    stops = positions[np.concatenate([breaks - 1, [len(positions) - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _frame_edges(row_splits: npt.NDArray[np.integer], head: VideoHead, token_count: int) -> npt.NDArray[np.int64]:
    """`[T + 1]` first token of each frame, from the row splits, which are checked. Raises DamageError."""
    rows = head.frame_count * head.grid.rows
    splits = row_splits.astype(np.int64)
    if splits.shape != (rows + 1,) or splits[0] != 0 or splits[-1] != token_count or (np.diff(splits) < 1).any():
        raise DamageError(f"the row splits of {head.id!r} are not prefix sums of its tokens")
    return splits[:: head.grid.rows]


def _check_head(head: VideoHead, info: DatasetInfo, row: VideoRow) -> VideoHead:
    """`head` itself, if it is the one `row` names and of the store's kind. Raises DamageError."""
    kind = (head.grid, head.token_dim, head.dtype, head.thresholds)
    if kind != (info.grid, info.token_dim, info.dtype, info.level_thresholds):
        raise DamageError(f"{row.id!r} is stored as {kind}, which is not what the store holds")
    if (head.id, head.key, head.frame_count) != (row.id, row.key, row.frames):
        raise DamageError(f"the shard holds {head.id!r} where its record names {row.id!r}")
    return head


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
