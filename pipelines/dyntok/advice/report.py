"""What advice on a budget says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SHARE = 0.95
FEWEST_FRAMES = 8


@dataclass(frozen=True, slots=True)
class FramesRow:
    """Videos cut to at most so many frames. Keys are names of thresholds, `0.50`.

    Attributes:
        frames: at most so many of each video, spread uniformly.
        videos: in how many the figures were counted; 0 of an estimate.
        length: the median video's tokens and markers; of an estimate, those of any video.
        fits: share of the videos whose tokens and markers fit; None of an estimate.
    """

    frames: int
    videos: int
    length: dict[str, float]
    fits: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class BudgetAdvice:
    """Which frames and thresholds fit a context of `budget` visual tokens, markers counted.

    Attributes:
        markers: `row`, `frame`, `video` or `none`.
        estimated: figures come from published ratios, not from videos.
        videos, sampled: encoded videos, and of how many the similarity maps were read.
        stored_frames: of the video that has most; 0 of an estimate.
        share: of the videos that have to fit for `most_frames`.
        rows: by rising number of frames.
        most_frames: at each threshold, the most frames with which `share` of the videos fit; 0 if one is too many.
    """

    budget: int
    markers: str
    estimated: bool
    videos: int
    sampled: int
    stored_frames: int
    share: float
    rows: tuple[FramesRow, ...]
    most_frames: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def usual_frames(most: int) -> list[int]:
    """Numbers of frames for a table: 8, 16, 32, ... below `most`, and `most`; of fewer than 9 frames from 1 on."""
    number = FEWEST_FRAMES if most > FEWEST_FRAMES else 1
    numbers = []
    while number < most:
        numbers.append(number)
        number *= 2
    return [*numbers, most]
