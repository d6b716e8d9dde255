"""What to decode, how, and within which limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dyntok.errors import ConfigError

Backend = Literal["auto", "decord", "pyav"]
Resample = Literal["bicubic", "bilinear"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of the presented frame list are taken: the two rules of LLaVA.

    With `frames`, that many positions spread uniformly (duplicates are kept when the video is shorter). With `fps`,
    every `round(source_fps / fps)`-th frame, and `max_frames` uniform ones where that would be more.
    Raises ConfigError unless exactly one of `frames` and `fps` is given.
    """

    frames: int | None = 32
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.fps is None):
            raise ConfigError("give either frames or fps, not both")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"frames must be at least 1, got {self.frames}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigError(f"fps must be positive, got {self.fps}")
        if self.max_frames is not None and (self.fps is None or self.max_frames < 1):
            raise ConfigError("max_frames goes with fps and must be at least 1")

    def count(self, total: int, source_fps: float) -> int:
        """How many positions `choose` would return; allocates nothing."""
        if self.frames is not None:
            return self.frames
        every = -(-total // self._step(source_fps))
        return min(every, self.max_frames) if self.max_frames is not None else every

    def choose(self, total: int, source_fps: float) -> npt.NDArray[np.int64]:
        """Positions `[T]` int64 into a list of `total` presented frames, ascending.

        `source_fps` is the presented mean rate; it is used with `fps` only.
        """
        if total < 1:
            raise ValueError("there is no frame to choose from")
        if self.frames is not None:
            return _uniform(total, self.frames)
        chosen = np.arange(0, total, self._step(source_fps), dtype=np.int64)
        if self.max_frames is not None and len(chosen) > self.max_frames:
            return _uniform(total, self.max_frames)
        return chosen

    def _step(self, source_fps: float) -> int:
        return max(1, round(source_fps / self.fps)) if self.fps is not None else 1


def _uniform(total: int, count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, total - 1, count).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one video may cost. Every limit is checked before the memory is asked for.

    Attributes:
        max_pixels: width x height of a source frame.
        max_seconds: presented duration.
        max_sampled_frames: frames asked for.
        max_packets: packets of the video stream that are indexed.
        timeout_s: active seconds for one video; waiting for the consumer does not count.
        memory_bytes: memory of a decode process beyond what it has at the start (POSIX only).
    """

    max_pixels: int = 8192 * 4320
    max_seconds: float = 24 * 3600.0
    max_sampled_frames: int = 200_000
    max_packets: int = 12_000_000
    timeout_s: float = 300.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ConfigError(f"{name} must be positive, got {value}")


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """How every video of a run is decoded: sampling, limits, and the size `height x width` of the images.

    `input_cache_bytes` bounds the temporary files that hold remote videos until they are decoded.
    """

    sampling: Sampling
    limits: DecodeLimits
    height: int
    width: int
    backend: Backend = "auto"
    resample: Resample = "bicubic"
    input_cache_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        if not (0 < self.height <= 8192 and 0 < self.width <= 8192):
            raise ConfigError(f"images are 1..8192 pixels high and wide, got {self.height}x{self.width}")
        if self.backend not in ("auto", "decord", "pyav"):
            raise ConfigError(f"the decoder is auto, decord or pyav, not {self.backend!r}")
        if self.resample not in ("bicubic", "bilinear"):
            raise ConfigError(f"resample is bicubic or bilinear, not {self.resample!r}")
