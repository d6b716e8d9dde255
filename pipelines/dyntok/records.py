"""The records that travel between packages, and nothing else. Imports numpy and `dyntok.urls` only.

Shape letters everywhere: T frames, R rows, C cols, N tokens, D token dim, F feature dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.urls import redact


@dataclass(frozen=True, slots=True)
class Grid:
    """The patch grid of one frame after pooling."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if not (self.rows > 0 and 0 < self.cols <= 255):
            raise ValueError(f"a grid has at least one row and 1..255 cols, got {self.rows}x{self.cols}")

    @property
    def patches(self) -> int:
        return self.rows * self.cols


@dataclass(frozen=True, slots=True)
class SourceRef:
    """Where the bytes of one video are: a whole file, or a stretch of an uncompressed tar.

    `path` is a local path or an fsspec URL. `offset` and `length` (bytes) are set for tar members only.
    """

    path: str
    offset: int | None = None
    length: int | None = None

    def __repr__(self) -> str:
        """Without the credentials that a URL may hold."""
        return f"SourceRef({redact(self.path)!r}, offset={self.offset}, length={self.length})"

    @property
    def is_whole_file(self) -> bool:
        return self.offset is None


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One row of `plan.parquet`: one attempt to encode one video.

    `source` is what people read (`clips/a.mp4`, `clips.tar!a.mp4`); `ref` is where the bytes are.
    `size_bytes` and `fingerprint` are None where the input could not be read when the plan was made.
    `extra` holds the pass-through columns of a manifest, as a JSON object in text. `attempt` counts from 1.
    """

    shard: int
    position: int
    id: str
    source: str
    ref: SourceRef
    size_bytes: int | None
    fingerprint: str | None
    extra: str = "{}"
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """Which frames of a video were asked for. `frame_index: [T] int64`, `frame_pts: [T] float64` seconds."""

    frame_index: npt.NDArray[np.int64]
    frame_pts: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.frame_index.shape != self.frame_pts.shape or self.frame_index.ndim != 1:
            raise ValueError(f"shapes differ: {self.frame_index.shape} and {self.frame_pts.shape}")

    def __len__(self) -> int:
        return len(self.frame_index)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the frame index says of a video, and how it was decoded.

    `seconds` is the presented duration, `fps` the mean presented rate, `decoder` the backend that was taken
    and `decoder_reason` why.
    """

    width: int
    height: int
    rotation_degrees: int
    frames_total: int
    seconds: float
    fps: float
    container: str
    codec: str
    decoder: str
    decoder_reason: str


@dataclass(frozen=True, slots=True)
class Level:
    """The tokens of one video at one threshold. The arrays' meaning is that of the store format.

    `tokens` is an iterable of `[n, D]` chunks in the stored dtype, to be read once; their lengths add up to
    `token_count`. bfloat16 chunks are `uint16` bit patterns. `token_scale: [N] float32` is there for int8 only.
    """

    threshold: float
    token_count: int
    tokens: Iterable[npt.NDArray[Any]]
    group_size: npt.NDArray[np.uint8]
    row_splits: npt.NDArray[np.int32]
    token_scale: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded video on its way into a shard writer, or out of a shard reader.

    `levels[0]` is the finest (stored) level; further ones, in falling order of threshold, exist in the
    explicit layout only. `meta` is what goes into the JSON member: JSON types only, no clock, no timing.
    """

    key: str
    id: str
    grid: Grid
    token_dim: int
    dtype: str
    similarity: npt.NDArray[np.float32]
    frames: SampledFrames
    levels: tuple[Level, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def frame_count(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class VideoRow:
    """The outcome of one video in a completion record, and one row of `index.parquet`.

    `tokens` maps a threshold's name (`0.40`) to the tokens at it. For a failed video every count is 0.
    `row` is the video's row among the *done* videos of its shard, -1 if failed. For WebDataset `offset` and
    `nbytes` are the byte range, inside the tar, of the safetensors member's content; for Zarr `offset` is the
    video's first token and `nbytes` the size of its tokens. `checksum` is the XXH3-128 (hex) of the video's stretch of
    the tar, which tells where a damaged tar is damaged; empty in Zarr shards, whose chunks have checksums of their own.
    """

    id: str
    key: str
    source: str
    position: int
    status: str
    attempt: int = 1
    error_class: str = ""
    error: str = ""
    row: int = -1
    offset: int = 0
    nbytes: int = 0
    frames: int = 0
    seconds: float = 0.0
    patches: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    decoder: str = ""
    checksum: str = ""


def reason(video_id: str, error: str) -> str:
    """A failed video's message for places where its id stands beside it: messages begin with the name too."""
    return error.removeprefix(f"{video_id}: ")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Size and sha256 (hex) of one file; `path` is relative to the store's root, with `/`."""

    path: str
    bytes: int
    sha256: str
