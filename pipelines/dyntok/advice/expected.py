"""Advice before anything is encoded, from published ratios."""

from __future__ import annotations

from collections.abc import Sequence

from dyntok.advice.report import FEWEST_FRAMES, SHARE, BudgetAdvice, FramesRow
from dyntok.merging import MarkerMode, marker_count
from dyntok.records import Grid
from dyntok.run.estimates import kept_ratio
from dyntok.store.names import threshold_name


def expect(
    budget: int, grid: Grid, thresholds: Sequence[float], markers: MarkerMode = "row", *, videos: int = 0
) -> BudgetAdvice:
    """How many frames to expect in a budget, if every video keeps the share of its patches that DynTok
    (arXiv 2506.03990) reports on average: 44.4 % at 0.6, 30 % at 0.5, 20 % at 0.4, straight lines between.

    What a video really keeps depends on its content, and how many frames it has on its length: no video is opened.
    """
    once = marker_count(markers, 0, grid.rows)
    each = marker_count(markers, 1, grid.rows) - once
    a_frame = {threshold_name(t): grid.patches * kept_ratio(t) + each for t in sorted(thresholds)}
    least = min(a_frame.values())
    rows: list[FramesRow] = []
    frames = FEWEST_FRAMES
    while not rows or rows[-1].frames * least + once <= budget:
        length = {name: round(frames * size + once, 1) for name, size in a_frame.items()}
        rows.append(FramesRow(frames, 0, length, dict.fromkeys(a_frame)))
        frames *= 2
    return BudgetAdvice(
        budget=budget,
        markers=markers,
        estimated=True,
        videos=videos,
        sampled=0,
        stored_frames=0,
        share=SHARE,
        rows=tuple(rows),
        most_frames={name: max(0, int((budget - once) / size)) for name, size in a_frame.items()},
    )
