"""What similarity maps say of merging, as counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import FRAMES_AT_ONCE, boundaries, group_sizes, lowest_edges

Counts = npt.NDArray[np.int64]

PARTS = 20
_STEPS = 200
_MOST_FRAME_BINS = 1024
_MEMBERS = ("similarity", "group_size", "frame_tokens", "part_frames", "part_tokens")


@dataclass(frozen=True, slots=True)
class MapShape:
    """What must be equal for statistics to add up: the patch grid, and the configured thresholds, rising."""

    rows: int
    cols: int
    thresholds: tuple[float, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """Thresholds at which counts are exact: 0.005 apart on [-1, 1], and the configured ones."""
        return _edges(self.thresholds)

    @property
    def frame_bin(self) -> int:
        """How many counts of tokens a frame share a bin: 1 on all but huge grids."""
        return -(-(self.rows * (self.cols - 1) + 1) // _MOST_FRAME_BINS)

    @property
    def frame_bins(self) -> int:
        """Bins of tokens a frame. The first begins at one token a row."""
        return self.rows * (self.cols - 1) // self.frame_bin + 1

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of `MapStatistics`."""
        levels = len(self.thresholds)
        return {
            "similarity": (len(self.edges),),
            "group_size": (levels, self.cols),
            "frame_tokens": (levels, self.frame_bins),
            "part_frames": (PARTS,),
            "part_tokens": (levels, PARTS),
        }


@dataclass(frozen=True, slots=True)
class MapStatistics:
    """Counts over the similarity maps of some videos. K configured thresholds, E edges, C cols.

    Attributes:
        shape: grid and thresholds.
        videos, frames: how many were looked at.
        similarity: `[E]`, similarities that lie at or below an edge and above the one before.
        group_size: `[K, C]`, groups of 1 .. C patches at each configured threshold.
        frame_tokens: `[K, frame_bins]`, frames by their number of tokens.
        part_frames: `[20]`, frames in each twentieth of their video.
        part_tokens: `[K, 20]`, tokens of these frames.
    """

    shape: MapShape
    videos: int
    frames: int
    similarity: Counts
    group_size: Counts
    frame_tokens: Counts
    part_frames: Counts
    part_tokens: Counts

    @classmethod
    def empty(cls, shape: MapShape) -> MapStatistics:
        """Of no video: what adding begins with."""
        return cls(shape, 0, 0, **{name: np.zeros(size, np.int64) for name, size in shape.sizes().items()})

    @classmethod
    def of(cls, similarity: npt.NDArray[np.float32], shape: MapShape) -> MapStatistics:
        """Of one video's map `[T, R, C]` with finite values in [-1, 1] outside column 0.

        Raises ValueError for a map of another grid.
        """
        if similarity.ndim != 3 or similarity.shape[1:] != (shape.rows, shape.cols):
            raise ValueError(f"the map is {similarity.shape}, the grid {shape.rows} x {shape.cols}")
        total = cls.empty(shape)
        frames = len(similarity)
        parts = np.arange(frames) * PARTS // max(1, frames)
        total.part_frames[:] = np.bincount(parts, minlength=PARTS)
        for first in range(0, frames, FRAMES_AT_ONCE):
            some = slice(first, first + FRAMES_AT_ONCE)
            values = similarity[some]
            lowest = lowest_edges(values, shape.edges)[:, :, 1:].ravel()
            total.similarity[:] += np.bincount(lowest, minlength=len(shape.edges))[: len(shape.edges)]
            for level, threshold in enumerate(shape.thresholds):
                begins = boundaries(values, threshold)
                total.group_size[level] += np.bincount(group_sizes(begins), minlength=shape.cols + 1)[1:]
                tokens = begins.sum((1, 2))
                bins = (tokens - shape.rows) // shape.frame_bin
                total.frame_tokens[level] += np.bincount(bins, minlength=shape.frame_bins)
                np.add.at(total.part_tokens[level], parts[some], tokens)
        return replace(total, videos=1, frames=frames)

    def __add__(self, other: MapStatistics) -> MapStatistics:
        """Of both. Raises ValueError where grid or thresholds differ."""
        if self.shape != other.shape:
            raise ValueError(f"statistics of {self.shape} and {other.shape} do not add up")
        arrays = {name: getattr(self, name) + getattr(other, name) for name in _MEMBERS}
        return MapStatistics(self.shape, self.videos + other.videos, self.frames + other.frames, **arrays)

    @property
    def patches(self) -> int:
        return self.frames * self.shape.rows * self.shape.cols

    def curve(self) -> list[int]:
        """Tokens at each edge, exactly: one a row, and one for each similarity that does not exceed it."""
        counts: list[int] = (self.frames * self.shape.rows + np.cumsum(self.similarity)).tolist()
        return counts

    def tokens(self, threshold: float) -> int:
        """Tokens at an edge. Raises ValueError for a threshold that is none."""
        return self.curve()[self.shape.edges.index(threshold)]

    def to_json(self) -> dict[str, Any]:
        """As JSON types; `from_json` is the inverse."""
        return {
            "grid": {"rows": self.shape.rows, "cols": self.shape.cols},
            "thresholds": list(self.shape.thresholds),
            "edges": list(self.shape.edges),
            "frame_bin": self.shape.frame_bin,
            "videos": self.videos,
            "frames": self.frames,
            **{name: getattr(self, name).tolist() for name in _MEMBERS},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], shape: MapShape) -> MapStatistics:
        """What `to_json` gave. Raises ValueError, KeyError or TypeError for anything else, or another shape."""
        arrays: dict[str, Counts] = {}
        for name, size in shape.sizes().items():
            array = np.array(content[name])
            if array.shape != size or array.dtype != np.int64 or (array < 0).any():
                raise ValueError(f"{name} is no array of {size} counts")
            arrays[name] = array
        made = cls(shape, content["videos"], content["frames"], **arrays)
        if type(made.videos) is not int or type(made.frames) is not int or made.to_json() != content:
            raise ValueError("the statistics are of another grid, of other thresholds, or not from dyntok")
        return made


@lru_cache(maxsize=64)
def _edges(thresholds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted({step / _STEPS for step in range(-_STEPS, _STEPS + 1)} | set(thresholds)))
