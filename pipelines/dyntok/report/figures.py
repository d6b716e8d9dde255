"""Charts as the data that plotly.js draws. Colours of text and lines are the page's, which knows light from dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    traces = []
    for number, found in enumerate(statistics):
        lowest = min(0.0, *found.info.thresholds)
        points = zip(found.maps.shape.edges, found.maps.curve(), strict=True)
        shown = [(edge, 100 * n / max(1, found.maps.patches)) for edge, n in points if edge >= lowest]
        traces.append(_line(found.root.url, shown, _store_colour(number)))
    diamond = {"size": 11, "symbol": "diamond-open", "color": "#d1495b", "line": {"width": 2}}
    traces.append(_dots("DynTok paper", list(PAPER.items()), marker=diamond))
    note = "Exact at each point. Diamonds: what the DynTok paper (arXiv 2506.03990) reports for its own videos."
    layout = _axes("threshold", "patches kept as tokens, %")
    return Figure("curve", "Tokens kept against threshold", note, tuple(traces), layout)


def _similarity(statistics: Sequence[StoreStatistics]) -> Figure:
    traces = []
    middles = [round(-1 + _SIMILARITY_STEP * (i + 0.5), 4) for i in range(round(2 / _SIMILARITY_STEP))]
    for number, found in enumerate(statistics):
        edges, counts = np.array(found.maps.shape.edges), found.maps.similarity
        bins = np.clip(np.ceil(np.round((edges + 1) / _SIMILARITY_STEP, 6)).astype(int), 1, None) - 1
        summed = np.zeros(len(middles), np.int64)
        np.add.at(summed, bins, counts)
        shares = (100 * summed / max(1, int(counts.sum()))).tolist()
        points = list(zip(middles, shares, strict=True))
        traces.append(_line(found.root.url, points, _store_colour(number), shape="hvh", fill="tozeroy"))
    note = f"Share of all pairs of neighbours in each {_SIMILARITY_STEP} of cosine similarity."
    layout = _axes("cosine similarity", "pairs, %")
    return Figure("similarity", "Similarity of neighbouring patches", note, tuple(traces), layout)


def _frames_and_tokens(number: int, found: StoreStatistics, budgets: Sequence[int]) -> Figure:
    names, totals, a_frame = found.videos.names, found.videos.totals, found.info.grid.patches
    most = max(found.videos.frames.most, 64)
    means = [tokens / max(1, totals.frames) for tokens in totals.tokens]
    traces = [_line("unmerged", [(1, a_frame), (most, a_frame * most)], "#94a3b8", dash="dot")]
    traces += _level_lines(found, ([(1, mean), (most, mean * most)] for mean in means))
    points = [
        (values[1] / values[0], values[-3] / values[0], *values[-2:]) for values in found.videos.by_frames.values()
    ]
    colour = colour_of(len(names) - 1, len(names))
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [high - y for _, y, _, high in points],
        "arrayminus": [y - low for _, y, low, _ in points],
        "thickness": 1,
        "color": colour,
    }
    dots = [(x, y) for x, y, _, _ in points]
    marker = {"size": 7, "color": colour}
    traces.append(_dots(f"videos at {names[-1]}", dots, error_y=spread, marker=marker))
    highest = a_frame * most
    budgets = [budget for budget in budgets if highest / _BUDGET_GAPS <= budget <= highest]
    layout = _axes("frames", "tokens")
    layout["shapes"] = [_budget_line(budget) for budget in budgets]
    layout["annotations"] = [_budget_note(budget) for budget in budgets]
    note = (
        "Lines: the mean tokens of a frame at each threshold, times frames; row markers do not count. Dots: the stored "
        "videos' mean, with the fewest and the most. Dashed: token budgets."
    )
    title = "Tokens of a video against its number of frames"
    return Figure("frames", title, note, tuple(traces), layout, number)


def _video_tokens(number: int, found: StoreStatistics) -> Figure:
    least = min((d.least for d in found.videos.tokens), default=0)
    most = max((d.most for d in found.videos.tokens), default=0)
    edges = np.unique(np.linspace(least, most + 1, _VIDEO_BINS + 1).astype(np.int64))
    middles = ((edges[:-1] + edges[1:] - 1) / 2).tolist()
    points = (list(zip(middles, d.histogram(edges), strict=True)) for d in found.videos.tokens)
    traces = _level_lines(found, points, shape="hvh")
    layout = _axes("tokens of a video", "videos")
    return Figure("videos", "Tokens of a video", "Videos by their number of tokens.", traces, layout, number)


def _frame_tokens(number: int, found: StoreStatistics) -> Figure:
    shape, frames = found.maps.shape, max(1, found.maps.frames)
    joined = -(-shape.frame_bins // _FRAME_BINS)
    starts = np.arange(0, shape.frame_bins, joined)
    middles = (shape.rows + shape.frame_bin * (starts + (joined - 1) / 2)).tolist()
    shares = (100 * np.add.reduceat(found.maps.frame_tokens, starts, axis=1) / frames).tolist()
    traces = _level_lines(found, (list(zip(middles, some, strict=True)) for some in shares), shape="hvh")
    note = f"A frame has {shape.rows} tokens at least, one a row, and {shape.rows * shape.cols} at most."
    layout = _axes("tokens of a frame", "frames, %")
    return Figure("frame", "Tokens of a frame", note, traces, layout, number)


def _group_sizes(number: int, found: StoreStatistics) -> Figure:
    patches = max(1, found.maps.patches)
    points = (
        [(size, 100 * n * size / patches) for size, n in enumerate(counts, start=1)]
        for counts in found.maps.group_size.tolist()
    )
    traces = _level_lines(found, points, mode="lines+markers")
    note = "How many patches became one token; a group never spans two rows."
    layout = _axes("patches of a group", "patches in such groups, %")
    return Figure("groups", "Length of groups", note, traces, layout, number)


def _parts(number: int, found: StoreStatistics) -> Figure:
    frames, a_frame = found.maps.part_frames.tolist(), found.info.grid.patches
    points = (
        [
            (100 * (i + 0.5) / len(frames), 100 * tokens / (n * a_frame))
            for i, (n, tokens) in enumerate(zip(frames, counts, strict=True))
            if n
        ]
        for counts in found.maps.part_tokens.tolist()
    )
    traces = _level_lines(found, points, mode="lines+markers")
    layout = _axes("place in the video, %", "patches kept as tokens, %", range=[0, 100])
    note = "All videos laid over each other, in twentieths of their frames."
    return Figure("parts", "Compression over time", note, traces, layout, number)


Points = Sequence[tuple[float, float]]


def _level_lines(found: StoreStatistics, points: Iterable[Points], **style: Any) -> tuple[dict[str, Any], ...]:
    """A line for each threshold."""
    names = found.videos.names
    lines = zip(names, points, strict=True)
    return tuple(_line(name, some, colour_of(i, len(names)), **style) for i, (name, some) in enumerate(lines))


def _line(name: str, points: Points, colour: str, **style: Any) -> dict[str, Any]:
    line = {"color": colour, "width": 2}
    line |= {key: style.pop(key) for key in ("shape", "dash") if key in style}
    return _trace("lines", literal(name), points) | {"line": line, **style}


def _dots(name: str, points: Points, **style: Any) -> dict[str, Any]:
    return _trace("markers", name, points) | style


def _trace(mode: str, name: str, points: Points) -> dict[str, Any]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"type": "scatter", "mode": mode, "name": name, "x": xs, "y": ys}


def _budget_line(budget: int) -> dict[str, Any]:
    line = {"width": 1, "dash": "dash", "color": "#94a3b8"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": budget, "y1": budget, "line": line}


def _budget_note(budget: int) -> dict[str, Any]:
    place = {"xref": "paper", "x": 1, "y": budget, "xanchor": "right", "yanchor": "bottom"}
    return {**place, "text": f"{budget:,}", "showarrow": False, "font": {"size": 10}}


def _axes(x: str, y: str, **of_x: Any) -> dict[str, Any]:
    """Titles of both axes; the vertical one begins at 0."""
    return {"xaxis": {"title": {"text": x}, **of_x}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}


def _store_colour(number: int) -> str:
    return STORE_COLOURS[number % len(STORE_COLOURS)]
