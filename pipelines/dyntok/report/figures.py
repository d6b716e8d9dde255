"""Charts as the data that plotly.js draws. Colours of text and lines are the page's, which knows light from dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyntok.report.gather import StoreStatistics
from dyntok.report.markup import visible

PAPER = {0.4: 20.0, 0.5: 30.0, 0.6: 44.4}
# Lines of smaller ones would lie on each other at the foot of the chart.
_BUDGET_GAPS = 8
STORE_COLOURS = ("#5b7fd1", "#d97706", "#1f9e89", "#d1495b", "#8b5cf6", "#64748b")
_STOPS = ((31, 158, 137), (91, 127, 209), (209, 73, 91))
_SIMILARITY_STEP = 0.02
_VIDEO_BINS = 40
_FRAME_BINS = 64


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: `store` is the number of its store, None for a chart of all of them."""

    name: str
    title: str
    note: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    store: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "traces": list(self.traces), "layout": self.layout}

    @property
    def id(self) -> str:
        return self.name if self.store is None else f"{self.name}-{self.store}"


def figures_of_all(statistics: Sequence[StoreStatistics]) -> list[Figure]:
    """Charts that show all stores together."""
    return [_curve(statistics), _similarity(statistics)]


def figures_of(number: int, statistics: StoreStatistics, budgets: Sequence[int]) -> list[Figure]:
    """Charts of one store, a line for each threshold."""
    return [
        _frames_and_tokens(number, statistics, budgets),
        _video_tokens(number, statistics),
        _frame_tokens(number, statistics),
        _group_sizes(number, statistics),
        _parts(number, statistics),
    ]


def colour_of(number: int, count: int) -> str:
    """Of a threshold, from the lowest to the highest."""
    place = number / max(1, count - 1) * (len(_STOPS) - 1)
    low = min(int(place), len(_STOPS) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def literal(text: str) -> str:
    """Text that plotly.js shows as it is, though it reads some tags."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _curve(statistics: Sequence[StoreStatistics]) -> Figure:
    traces: list[dict[str, Any]] = []
    for number, found in enumerate(statistics):
        patches = max(1, found.maps.patches)
        shown = [
            (edge, 100 * n / patches)
            for edge, n in zip(found.maps.shape.edges, found.maps.curve(), strict=True)
            if edge >= min(0.0, *found.info.thresholds)
        ]
        traces.append(_line(found.root.url, shown, _store_colour(number)))
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "DynTok paper",
            "x": list(PAPER),
            "y": list(PAPER.values()),
            "marker": {"size": 11, "symbol": "diamond-open", "color": "#d1495b", "line": {"width": 2}},
        }
    )
    return Figure(
        "curve",
        "Tokens kept against threshold",
        "Exact at each point. Diamonds: what the DynTok paper (arXiv 2506.03990) reports for its own videos.",
        tuple(traces),
        {"xaxis": _axis("threshold"), "yaxis": _axis("patches kept as tokens, %", rangemode="tozero")},
    )


def _similarity(statistics: Sequence[StoreStatistics]) -> Figure:
    traces = []
    for number, found in enumerate(statistics):
        edges, counts = np.array(found.maps.shape.edges), found.maps.similarity
        bins = np.clip(np.ceil(np.round((edges + 1) / _SIMILARITY_STEP, 6)).astype(int), 1, None) - 1
        summed = np.zeros(round(2 / _SIMILARITY_STEP), np.int64)
        np.add.at(summed, bins, counts)
        shares = 100 * summed / max(1, int(counts.sum()))
        shown = [
            (round(-1 + _SIMILARITY_STEP * (i + 0.5), 4), float(share))
            for i, share in enumerate(shares.tolist())
        ]
        traces.append(_line(found.root.url, shown, _store_colour(number), shape="hvh", fill="tozeroy"))
    return Figure(
        "similarity",
        "Similarity of neighbouring patches",
        f"Share of all pairs of neighbours in each {_SIMILARITY_STEP} of cosine similarity.",
        tuple(traces),
        {"xaxis": _axis("cosine similarity"), "yaxis": _axis("pairs, %", rangemode="tozero")},
    )


def _frames_and_tokens(number: int, found: StoreStatistics, budgets: Sequence[int]) -> Figure:
    names, grid = found.videos.names, found.info.grid
    totals = found.videos.totals
    most = max(found.videos.frames.most, 64)
    traces = [_line("unmerged", [(1, grid.patches), (most, grid.patches * most)], "#94a3b8", dash="dot")]
    for level, name in enumerate(names):
        mean = totals.tokens[level] / max(1, totals.frames)
        traces.append(_line(name, [(1, mean), (most, mean * most)], colour_of(level, len(names))))
    points = [
        (values[1] / values[0], values[-3] / values[0], *values[-2:])
        for values in found.videos.by_frames.values()
    ]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"videos at {names[-1]}",
            "x": [x for x, *_ in points],
            "y": [y for _, y, *_ in points],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [high - y for _, y, _, high in points],
                "arrayminus": [y - low for _, y, low, _ in points],
                "thickness": 1,
                "color": colour_of(len(names) - 1, len(names)),
            },
            "marker": {"size": 7, "color": colour_of(len(names) - 1, len(names))},
        }
    )
    highest = grid.patches * most
    budgets = [budget for budget in budgets if highest / _BUDGET_GAPS <= budget <= highest]
    return Figure(
        "frames",
        "Tokens of a video against its number of frames",
        "Lines: the mean tokens of a frame at each threshold, times frames; row markers do not count. Dots: the stored "
        "videos' mean, with the fewest and the most. Dashed: token budgets.",
        tuple(traces),
        {
            "xaxis": _axis("frames"),
            "yaxis": _axis("tokens", rangemode="tozero"),
            "shapes": [_budget_line(budget) for budget in budgets],
            "annotations": [_budget_note(budget) for budget in budgets],
        },
        number,
    )


def _video_tokens(number: int, found: StoreStatistics) -> Figure:
    names = found.videos.names
    least = min((d.least for d in found.videos.tokens), default=0)
    most = max((d.most for d in found.videos.tokens), default=0)
    edges = np.unique(np.linspace(least, most + 1, _VIDEO_BINS + 1).astype(np.int64))
    middles = ((edges[:-1] + edges[1:] - 1) / 2).tolist()
    traces = [
        _line(
            name,
            list(zip(middles, spread.histogram(edges), strict=True)),
            colour_of(i, len(names)),
            shape="hvh",
        )
        for i, (name, spread) in enumerate(zip(names, found.videos.tokens, strict=True))
    ]
    layout = {"xaxis": _axis("tokens of a video"), "yaxis": _axis("videos", rangemode="tozero")}
    return Figure(
        "videos", "Tokens of a video", "Videos by their number of tokens.", tuple(traces), layout, number
    )


def _frame_tokens(number: int, found: StoreStatistics) -> Figure:
    names, shape = found.videos.names, found.maps.shape
    frames = max(1, found.maps.frames)
    joined = -(-shape.frame_bins // _FRAME_BINS)
    starts = np.arange(0, shape.frame_bins, joined)
    traces = []
    for level, name in enumerate(names):
        shares = 100 * np.add.reduceat(found.maps.frame_tokens[level], starts) / frames
        middles = shape.rows + shape.frame_bin * (starts + (joined - 1) / 2)
        points = list(zip(middles.tolist(), shares.tolist(), strict=True))
        traces.append(_line(name, points, colour_of(level, len(names)), shape="hvh"))
    layout = {"xaxis": _axis("tokens of a frame"), "yaxis": _axis("frames, %", rangemode="tozero")}
    note = f"A frame has {shape.rows} tokens at least, one a row, and {shape.rows * shape.cols} at most."
    return Figure("frame", "Tokens of a frame", note, tuple(traces), layout, number)


def _group_sizes(number: int, found: StoreStatistics) -> Figure:
    names, cols = found.videos.names, found.maps.shape.cols
    patches = max(1, found.maps.patches)
    traces = [
        _line(
            name,
            [(size, 100 * n * size / patches) for size, n in zip(range(1, cols + 1), counts, strict=True)],
            colour_of(level, len(names)),
            mode="lines+markers",
        )
        for level, (name, counts) in enumerate(zip(names, found.maps.group_size.tolist(), strict=True))
    ]
    layout = {
        "xaxis": _axis("patches of a group"),
        "yaxis": _axis("patches in such groups, %", rangemode="tozero"),
    }
    note = "How many patches became one token; a group never spans two rows."
    return Figure("groups", "Length of groups", note, tuple(traces), layout, number)


def _parts(number: int, found: StoreStatistics) -> Figure:
    names, maps = found.videos.names, found.maps
    parts = len(maps.part_frames)
    traces = []
    for level, name in enumerate(names):
        shown = [
            (100 * (i + 0.5) / parts, 100 * tokens / (frames * maps.shape.rows * maps.shape.cols))
            for i, (frames, tokens) in enumerate(
                zip(maps.part_frames.tolist(), maps.part_tokens[level].tolist(), strict=True)
            )
            if frames
        ]
        traces.append(_line(name, shown, colour_of(level, len(names)), mode="lines+markers"))
    layout = {
        "xaxis": _axis("place in the video, %", range=[0, 100]),
        "yaxis": _axis("patches kept as tokens, %", rangemode="tozero"),
    }
    note = "All videos laid over each other, in twentieths of their frames."
    return Figure("parts", "Compression over time", note, tuple(traces), layout, number)


def _line(name: str, points: Sequence[tuple[float, float]], colour: str, **style: Any) -> dict[str, Any]:
    line = {"color": colour, "width": 2}
    line |= {key: style.pop(key) for key in ("shape", "dash") if key in style}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": literal(name),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": line,
        **style,
    }


def _budget_line(budget: int) -> dict[str, Any]:
    line = {"width": 1, "dash": "dash", "color": "#94a3b8"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": budget, "y1": budget, "line": line}


def _budget_note(budget: int) -> dict[str, Any]:
    place = {"xref": "paper", "x": 1, "y": budget, "xanchor": "right", "yanchor": "bottom"}
    return {**place, "text": f"{budget:,}", "showarrow": False, "font": {"size": 10}}


def _axis(title: str, **settings: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **settings}


def _store_colour(number: int) -> str:
    return STORE_COLOURS[number % len(STORE_COLOURS)]
