"""Pictures of one stored video: a frame, a contact sheet, every frame in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dyntok.boundaries import boundaries
from dyntok.errors import UsageError
from dyntok.load import Store
from dyntok.pictures.drawing import Image, Map, blank, draw_groups, similarity_map
from dyntok.pictures.labels import check_pillow, label
from dyntok.pictures.layout import GridLayout, covered_share
from dyntok.pictures.sheets import below, beside, framed, heat_bar, sheet
from dyntok.pictures.sources import SourceVideo
from dyntok.video import resize_frame

# Beyond this, a picture is drawn less long than it is, so that patches keep some pixels.
_LONGEST_ASPECT = 5.0
_SIDES = (56, 8192)


@dataclass(frozen=True, slots=True)
class Views:
    """What is drawn of each frame, side by side: the source's frame (if there is one), groups, the similarity map.

    Attributes:
        thresholds: the groups at each of these; any, also above the stored one.
        similarity: also the similarity map.
        side: pixels of the longer side of each picture.
    """

    thresholds: tuple[float, ...]
    similarity: bool = False
    side: int = 560

    def __post_init__(self) -> None:
        if not self.thresholds and not self.similarity:
            raise UsageError("there is nothing to draw", hint="name a threshold, or the similarity map")
        if any(threshold != threshold for threshold in self.thresholds):
            raise UsageError("a threshold is not a number")
        if not _SIDES[0] <= self.side <= _SIDES[1]:
            raise UsageError(f"a picture is {_SIDES[0]} to {_SIDES[1]} pixels long, not {self.side}")


class VideoPictures:
    """Draws the frames of one stored video. With `source` over its frames, without it on blank ones.

    Raises UsageError where Pillow, which writes the labels, is missing.
    """

    def __init__(self, store: Store, video_id: str, views: Views, source: SourceVideo | None = None) -> None:
        check_pillow()
        self._head = store[video_id].head
        self._views = views
        self._source = source
        height, width = _fitted(self._size(), views.side)
        covered = covered_share(store.info.model)
        self._layout = GridLayout.over(height, width, self._head.grid, covered)
        self._gap = max(2, views.side // 70)
        self._bar = max(14, views.side // 18)

    @property
    def frame_count(self) -> int:
        return self._head.frame_count

    def nearest(self, seconds: float) -> int:
        """Position of the stored frame whose time is nearest."""
        return int(np.abs(self._head.frames.frame_pts - seconds).argmin())

    def frame(self, position: int) -> Image:
        """Every view of one stored frame. Raises UsageError if there is none, VideoError if it cannot be decoded."""
        if not 0 <= position < self.frame_count:
            raise UsageError(f"{self._head.id} has frames 0 to {self.frame_count - 1} in the store, not {position}")
        (strip,) = self._strips([position])
        return framed(strip, self._gap)

    def sheet(self, most: int) -> Image:
        """Every view of at most so many frames, spread uniformly over the stored ones."""
        if most < 1:
            raise UsageError(f"a contact sheet has at least one frame, not {most}")
        count = min(most, self.frame_count)
        positions = np.unique(np.linspace(0, self.frame_count - 1, count).astype(int)).tolist()
        return sheet(list(self._strips(positions)), 2 * self._gap)

    def clip(self) -> Iterator[Image]:
        """Every view of each stored frame in turn; one in memory at a time."""
        return self._strips(range(self.frame_count))

    def _size(self) -> tuple[int, int]:
        """Height and width of the frames: of the source, or as the store noted them."""
        if self._source is not None:
            return self._source.height, self._source.width
        return self._head.frame_size or (1, 1)

    def _strips(self, positions: Sequence[int]) -> Iterator[Image]:
        height, width = self._layout.height, self._layout.width
        if self._source is None:
            for position in positions:
                yield self._strip(position, None, blank(height, width))
            return
        for position, image in zip(positions, self._source.images(positions), strict=True):
            resized = np.ascontiguousarray(resize_frame(image, height, width))
            yield self._strip(position, resized, resized)

    def _strip(self, position: int, frame: Image | None, base: Image) -> Image:
        similarity: Map = self._head.similarity[position]
        views = [] if frame is None else [(frame, self._label("source"))]
        for threshold in self._views.thresholds:
            drawn = draw_groups(base, similarity, threshold, self._layout)
            tokens = int(boundaries(similarity, threshold).sum())
            share = f"{100 * tokens / similarity.size:.0f} %"
            caption = f"threshold {threshold:.4g}: {tokens} of {similarity.size} tokens, {share}"
            views.append((drawn, self._label(caption)))
        if self._views.similarity:
            drawn = similarity_map(base, similarity, self._layout)
            views.append((drawn, heat_bar(self._layout.width, self._bar)))
        joined = beside([below(view, 0) for view in views], self._gap)
        heading = f"frame {position}, {self._head.frames.frame_pts[position]:.2f} s"
        return below([label(heading, joined.shape[1], self._bar), joined], 0)

    def _label(self, text: str) -> Image:
        return label(text, self._layout.width, self._bar)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` scaled until its longer side is `side`."""
    height, width = size
    shorter = max(min(height, width) / max(height, width), 1 / _LONGEST_ASPECT)
    short = max(1, round(side * shorter))
    return (short, side) if height <= width else (side, short)
