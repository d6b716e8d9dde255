"""What is asked of a decode pool, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyntok.errors import VideoError
from dyntok.records import SampledFrames, SourceRef, VideoInfo


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """One video to decode. `token` is the caller's and unique in a pool; messages call the video by its `id`.

    `size_bytes` and `etag` are those of the plan, None where it has none: a remote video that has others has changed.
    """

    token: int
    id: str
    ref: SourceRef
    size_bytes: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Comes once for each video that could be opened, before any `Frames`."""

    task: DecodeTask
    frames: SampledFrames
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class Frames:
    """Consecutive sampled frames, the first of them at position `start` of the sampled list.

    `images: [n, H, W, 3]` uint8 is a view of shared memory that is valid until the next call of `next_event`,
    `submit` or `close`.
    """

    task: DecodeTask
    start: int
    images: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Finished:
    """All frames were delivered. `stages` has the CPU seconds of `index`, `decode` and `resize`."""

    task: DecodeTask
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failed:
    """The video failed for good, after `attempts` attempts; frames may have been delivered before."""

    task: DecodeTask
    error: VideoError
    attempts: int


DecodeEvent = Opened | Frames | Finished | Failed
