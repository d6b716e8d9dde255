"""Reading one shard, whatever its format: heads without tokens, any frames, whole videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import groups_of
from dyntok.errors import DamageError, UsageError
from dyntok.records import Level, Sample, SampledFrames, VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import shard_data_path
from dyntok.store.root import StoreRoot
from dyntok.store.samples import LevelGroups, StoredLevel, StoredVideo, VideoHead
from dyntok.store.tensorfile import Array

FrameChoice = Sequence[int] | npt.NDArray[np.integer]


class ShardReader(Protocol):
    """Random access to the videos of a shard by `row`, 0 .. len - 1. Safe to use from one thread at a time.

    Arrays are read-only. Those of a local tar are views of the memory-mapped file (`as_torch` shares them further);
    others are copies. `frames` are positions among the stored frames, in any order, duplicates allowed; only the
    bytes of these frames are read.

    All methods raise DamageError where bytes are not what the format says, UsageError for a frame that is not there.
    """

    @property
    def rows(self) -> tuple[VideoRow, ...]:
        """The completion record's rows of the videos held, by `row`."""

    def __len__(self) -> int: ...

    def head(self, row: int, frames: FrameChoice | None = None) -> VideoHead:
        """Everything but tokens."""

    def level(self, row: int, level: int = 0, frames: FrameChoice | None = None) -> StoredLevel:
        """Tokens of one stored level; 0 is the finest."""

    def read(self, row: int, frames: FrameChoice | None = None) -> StoredVideo:
        """Head and every stored level."""

    def groups(self, row: int, level: int = 0) -> LevelGroups:
        """A stored level without its tokens."""

    def row_marker_index(self, row: int, level: int = 0) -> npt.NDArray[np.int64]:
        """The level's `[T*R]` as the explicit layout stores it; UsageError in the nested layout."""

    def token_chunks(self, row: int, level: int = 0, chunk_rows: int = 2048) -> Iterator[Array]:
        """Tokens of a level in pieces of at most `chunk_rows`, for samples larger than memory."""


def check_files(root: StoreRoot, info: DatasetInfo, record: CompletionRecord) -> None:
    """Raise DamageError unless every data file of the record is there with its size. Contents are not read."""
    path = shard_data_path(record.shard, info.shard_format)
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


def frame_positions(frames: FrameChoice, frame_count: int, video_id: str) -> npt.NDArray[np.int64]:
    """`frames` as int64 positions. Raises UsageError for one outside 0 .. T - 1, or for none at all."""
    positions = np.asarray(frames)
    if positions.ndim != 1 or not len(positions) or positions.dtype.kind not in "iu":
        raise UsageError(f"frames of {video_id!r} must be a non-empty list of integers")
    if positions.min() < 0 or positions.max() >= frame_count:
        raise UsageError(f"{video_id!r} has frames 0 to {frame_count - 1}; asked for {positions.tolist()}")
    return positions.astype(np.int64)


def frame_runs(positions: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Maximal runs of consecutive positions as (start, stop)."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    starts = positions[np.concatenate([[0], breaks])]
    stops = positions[np.concatenate([breaks - 1, [len(positions) - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def frame_edges(
    row_splits: npt.NDArray[np.integer], head: VideoHead, token_count: int
) -> npt.NDArray[np.int64]:
    """`[T + 1]` first token of each frame, from the row splits, which are checked. Raises DamageError."""
    rows = head.frame_count * head.grid.rows
    splits = row_splits.astype(np.int64)
    if (
        splits.shape != (rows + 1,)
        or splits[0] != 0
        or splits[-1] != token_count
        or (np.diff(splits) < 1).any()
    ):
        raise DamageError(f"the row splits of {head.id!r} are not prefix sums of its tokens")
    return splits[:: head.grid.rows]


def level_of_frames(
    head: VideoHead,
    groups: LevelGroups,
    token_count: int,
    positions: npt.NDArray[np.int64],
    fetch: Callable[[int, int], Array],
) -> StoredLevel:
    """Tokens of some frames of a level: `fetch(begin, end)` is asked for each run of consecutive frames.

    Group sizes and row splits of the choice follow from the similarity map.
    """
    edges = frame_edges(groups.row_splits, head, token_count)
    spans = [(int(edges[start]), int(edges[stop])) for start, stop in frame_runs(positions)]
    parts = [fetch(begin, end) for begin, end in spans]
    group_size, row_splits = groups_of(head.similarity[positions], groups.threshold)
    tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(tokens) != len(group_size):
        raise DamageError(f"the row splits of {head.id!r} contradict its similarity map")
    scale = groups.token_scale
    if scale is not None:
        scale = np.concatenate([scale[begin:end] for begin, end in spans])
    return StoredLevel(groups.threshold, tokens, group_size, row_splits, scale)


def check_head(head: VideoHead, info: DatasetInfo, row: VideoRow) -> VideoHead:
    """`head` itself, if it is the one `row` names and of the store's kind. Raises DamageError."""
    kind = (head.grid, head.token_dim, head.dtype, head.thresholds)
    if kind != (info.grid, info.token_dim, info.dtype, info.level_thresholds):
        raise DamageError(f"{row.id!r} is stored as {kind}, which is not what the store holds")
    if (head.id, head.key, head.frame_count) != (row.id, row.key, row.frames):
        raise DamageError(f"the shard holds {head.id!r} where its record names {row.id!r}")
    return head


def check_row(rows: Sequence[VideoRow], row: int) -> VideoRow:
    """The record's row. Raises UsageError if there is none."""
    if not 0 <= row < len(rows):
        raise UsageError(f"the shard holds rows 0 to {len(rows) - 1}, asked for {row}")
    return rows[row]


def check_explicit(info: DatasetInfo) -> None:
    """Raise UsageError unless row markers are stored."""
    if info.layout != "explicit":
        raise UsageError("only the explicit layout stores row_marker_index; it follows from row_splits")


def check_level(info: DatasetInfo, level: int) -> float:
    """Threshold of a stored level. Raises UsageError if it is not stored."""
    if not 0 <= level < len(info.level_thresholds):
        raise UsageError(f"the store holds levels 0 to {len(info.level_thresholds) - 1}, asked for {level}")
    return info.level_thresholds[level]


def take_frames(head: VideoHead, positions: npt.NDArray[np.int64]) -> VideoHead:
    """The head of some frames."""
    return VideoHead(
        key=head.key,
        id=head.id,
        grid=head.grid,
        token_dim=head.token_dim,
        dtype=head.dtype,
        thresholds=head.thresholds,
        similarity=_frozen(head.similarity[positions]),
        frames=SampledFrames(
            _frozen(head.frames.frame_index[positions]), _frozen(head.frames.frame_pts[positions])
        ),
        meta=head.meta,
    )


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
