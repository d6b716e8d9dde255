"""What was merged in a few frames of the videos that keep least and most."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dyntok.boundaries import group_sizes, lowest_edges
from dyntok.errors import DamageError
from dyntok.report.gather import StoreStatistics
from dyntok.stats import Example, MapShape, MapStatistics
from dyntok.store import ShardReader, VideoHead, open_shard_reader

SHOWN_VIDEOS = 4
SHOWN_FRAMES = 3
# Frames are shown of the beginning of long videos, so that their sources need not be decoded to the end.
FIRST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame. `bins: [R * C]` says for each patch at which edge it begins a group of its own, 0 in column 0;
    `jpeg` is the source's frame, squashed to a square, or empty."""

    position: int
    seconds: float
    bins: tuple[int, ...]
    jpeg: bytes = b""

    def to_json(self) -> dict[str, Any]:
        image = f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}" if self.jpeg else ""
        return {"frame": self.position, "seconds": self.seconds, "bins": list(self.bins), "image": image}


@dataclass(frozen=True, slots=True)
class Overlay:
    """Some frames of one video. `keeps` is `least` or `most`; `curve` has the video's tokens at each edge."""

    example: Example
    keeps: str
    head: VideoHead
    curve: tuple[int, ...]
    shots: tuple[Shot, ...]

    @property
    def aspect(self) -> float:
        """Width by height of the source; 1 where it is not known."""
        height, width = self.head.frame_size or (1, 1)
        return min(4.0, max(0.25, width / height))

    def with_images(self, images: Mapping[int, bytes]) -> Overlay:
        """With the sources' frames, by position."""
        shots = tuple(replace(shot, jpeg=images.get(shot.position, b"")) for shot in self.shots)
        return replace(self, shots=shots)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.example.id,
            "keeps": self.keeps,
            "frames": self.example.frames,
            "patches": self.example.patches,
            "aspect": self.aspect,
            "curve": list(self.curve),
            "shots": [shot.to_json() for shot in self.shots],
        }


def overlays(statistics: StoreStatistics) -> list[Overlay]:
    """Of up to four videos that keep least and four that keep most; without images.

    Raises DamageError where the stored groups are not those that the similarity map gives.
    """
    videos = statistics.videos
    least = videos.least[:SHOWN_VIDEOS]
    most = [example for example in videos.most if example not in least][:SHOWN_VIDEOS]
    root, info, shape = statistics.root, statistics.info, statistics.maps.shape
    return [
        _overlay(open_shard_reader(root, info, example.shard), example, keeps, shape)
        for keeps, examples in (("least", least), ("most", most))
        for example in examples
    ]


def _overlay(reader: ShardReader, example: Example, keeps: str, shape: MapShape) -> Overlay:
    head, groups = reader.head(example.row), reader.groups(example.row)
    bins = lowest_edges(head.similarity, shape.edges)
    if not np.array_equal(group_sizes(bins <= shape.edges.index(groups.threshold)), groups.group_size):
        raise DamageError(
            f"the groups of {head.id!r} contradict its similarity map",
            hint="`dyntok verify` lists all damage",
        )
    shown = np.unique(np.linspace(0, min(head.frame_count, FIRST_FRAMES) - 1, SHOWN_FRAMES).astype(int))
    shots = tuple(Shot(t, float(head.frames.frame_pts[t]), tuple(bins[t].ravel().tolist())) for t in shown.tolist())
    return Overlay(example, keeps, head, tuple(MapStatistics.of(head.similarity, shape).curve()), shots)
