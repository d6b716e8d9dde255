"""The parts of the page that are text and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dyntok.errors import VIDEO_ERROR_CODES
from dyntok.records import reason
from dyntok.report.figures import Figure
from dyntok.report.gather import StoreStatistics
from dyntok.report.markup import Markup, joined, table, tag
from dyntok.report.throughput import Throughput
from dyntok.stats import Example


def section(name: str, title: str, *content: str | None) -> Markup:
    """A part of the page with a heading."""
    return tag("section", tag("h2", title), *content, id=name)


def headline(statistics: Sequence[StoreStatistics]) -> Markup:
    """The numbers that matter most, one column a store."""
    totals = [found.videos.totals for found in statistics]
    rows = [
        ["videos done", *(f"{t.done:,}" for t in totals)],
        ["videos failed", *(f"{t.failed:,}" for t in totals)],
        ["frames", *(f"{t.frames:,}" for t in totals)],
        ["length", *(hours(t.microseconds / 1e6) for t in totals)],
        ["patches", *(f"{t.patches:,}" for t in totals)],
        ["bytes of tokens", *(size(t.nbytes) for t in totals)],
    ]
    names = sorted({name for found in statistics for name in found.videos.names}, key=float)
    rows += [[f"kept at {name}", *(_kept(found, name) for found in statistics)] for name in names]
    if len(statistics) == 1:
        tiles = (tag("div", tag("strong", value), tag("span", name)) for name, value in rows)
        return tag("div", *tiles, class_="tiles")
    return table(["", *(found.root.url for found in statistics)], rows, numbers=1)


def _kept(found: StoreStatistics, name: str) -> str:
    if float(name) not in found.maps.shape.edges:
        return "-"
    tokens = found.maps.tokens(float(name))
    return f"{percent(tokens, found.maps.patches)} ({tokens:,})"


def chart(figure: Figure) -> Markup:
    """The place of a chart, with its title and what it shows."""
    return tag(
        "figure",
        tag("figcaption", tag("h3", figure.title), tag("p", figure.note)),
        tag("div", id=f"chart-{figure.id}", class_="chart", role="img", aria_label=figure.title),
        class_="card",
    )


def extremes(found: StoreStatistics) -> Markup:
    """Tables of the videos that keep least and most."""
    headers = ["video", "frames", *(f"at {name}" for name in found.videos.names)]

    def rows(examples: Sequence[Example]) -> list[list[str]]:
        return [[e.id, f"{e.frames:,}", *(percent(n, e.patches) for n in e.tokens)] for e in examples]

    return joined(
        [
            tag("h3", "Videos that keep the smallest share of their patches"),
            table(headers, rows(found.videos.least), numbers=1),
            tag("h3", "Videos that keep the largest share"),
            table(headers, rows(found.videos.most), numbers=1),
        ]
    )


def breakdown(found: StoreStatistics) -> Markup | None:
    """Sums for each value of a column, if they were asked for."""
    if found.by is None:
        return None
    names = found.videos.names
    headers = [found.by.column, "videos", "failed", "frames", *(f"at {name}" for name in names), "bytes"]
    rows = [
        [
            value,
            *(f"{number:,}" for number in (total.videos, total.failed, total.frames)),
            *(percent(tokens, total.patches) for tokens in total.tokens),
            size(total.nbytes),
        ]
        for value, total in found.by.totals.items()
    ]
    return joined([tag("h3", f"Kept share by {found.by.column}"), table(headers, rows, numbers=1)])


def failures(found: StoreStatistics) -> Markup:
    """Failed videos by class, with the first of each."""
    classes = sorted(found.videos.error_classes.items(), key=lambda item: (-item[1], item[0]))
    if not classes:
        return tag("p", "No video failed.")
    parts = []
    for name, number in classes:
        meaning = VIDEO_ERROR_CODES.get(name, "")
        examples = [
            tag("li", tag("code", example.id), tag("span", f" {reason(example.id, example.error)}"))
            for example in found.videos.failures.get(name, ())
        ]
        summary = tag("summary", tag("strong", name or "others"), f": {number:,}. {meaning}")
        parts.append(tag("details", summary, tag("ul", *examples), open=True))
    return joined(parts)


def stages(found: Throughput) -> Markup:
    """Seconds and frames a second of each stage."""
    if not found.stages:
        return tag("p", "The store has no logs of a run that encoded a frame.")
    slowest = sorted(found.stages, key=lambda stage: -stage.seconds)
    rows = [[s.stage, f"{s.seconds:,.2f}", f"{s.frames_per_second:,.1f}"] for s in slowest]
    runs = "one run" if found.runs == 1 else f"{found.runs:,} runs"
    note = (
        f"{found.frames:,} frames, from the logs of {runs}. Stages overlap; those of decoding are CPU seconds of all "
        "processes together, the others seconds of their thread."
    )
    return joined([tag("p", note), table(["stage", "seconds", "frames/s"], rows, numbers=1)])


def settings(statistics: Sequence[StoreStatistics]) -> Markup:
    """Every setting of every store; those that differ are marked."""
    configs = [_flat(found) for found in statistics]
    names = sorted({name for config in configs for name in config})
    rows = []
    for name in names:
        values = [config.get(name, "-") for config in configs]
        differs = len(set(values)) > 1
        rows.append([tag("strong", f"{name} *") if differs else name, *values])
    parts = [table(["setting", *(found.root.url for found in statistics)], rows)]
    if len(statistics) > 1:
        parts.insert(0, tag("p", "Settings with a star differ."))
    return joined(parts)


def _flat(found: StoreStatistics) -> dict[str, str]:
    info = found.info
    values: dict[str, Any] = dict(info.config)
    values |= {f"model: {key}": value for key, value in info.model.items()}
    values |= {f"version: {key}": value for key, value in info.software.items()}
    values |= {"config_hash": info.config_hash, "grid": f"{info.grid.rows} x {info.grid.cols}"}
    values |= {"token_dim": info.token_dim, "shard_format": info.shard_format}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def size(number: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} PB"


def hours(seconds: float) -> str:
    """`1 min 05 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"
