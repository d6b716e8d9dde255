"""One page of HTML that says what stores hold: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dyntok.durable import replaced
from dyntok.errors import StoreError, UsageError
from dyntok.report import sections
from dyntok.report.figures import Figure, figures_of, figures_of_all
from dyntok.report.gather import StoreStatistics
from dyntok.report.markup import Markup, data_block, joined, table, tag
from dyntok.report.overlays import Overlay, overlays
from dyntok.report.throughput import throughput
from dyntok.version import __version__

# What the page may load: nothing. What may run in it: these two scripts.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {} {}"
# Contexts of language models, of which those are shown that the videos come near.
_BUDGETS = tuple(2**power for power in range(9, 21))
_BUDGETS_SHOWN = 4


def check_plotly() -> None:
    """Raise UsageError unless plotly, whose JavaScript draws the charts, is installed."""
    if find_spec("plotly") is None:
        raise UsageError("a report needs plotly, which is not installed", hint="pip install 'dyntok[report]'")


def save_report(
    statistics: Sequence[StoreStatistics], path: str, *, thumbnails: bool = True, budgets: Sequence[int] = ()
) -> None:
    """Write the report of some stores to a file, which is replaced if it is there.

    Args:
        statistics: of each store.
        path: of the file.
        thumbnails: show frames of the sources, where these can be read.
        budgets: visual tokens of the contexts to say what fits; without any, usual ones that the videos come near.

    Raises UsageError without plotly, StoreError where writing fails.
    """
    target = Path(path)
    content = report_html(statistics, thumbnails=thumbnails, budgets=budgets).encode("utf-8", "backslashreplace")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def report_html(statistics: Sequence[StoreStatistics], *, thumbnails: bool = True, budgets: Sequence[int] = ()) -> str:
    """The page. Its size does not grow with the number of videos."""
    check_plotly()
    asked = [tuple(sorted(set(budgets))) or _usual_budgets(found) for found in statistics]
    shown = [overlays(found) for found in statistics]
    if thumbnails:
        from dyntok.report.thumbnails import add_thumbnails

        shown = [add_thumbnails(found, some) for found, some in zip(statistics, shown, strict=True)]
    charts = figures_of_all(statistics)
    own = [figures_of(number, found, asked[number]) for number, found in enumerate(statistics)]
    body = joined(
        [
            sections.section("headline", "Headline", sections.headline(statistics)),
            _slider(statistics),
            sections.section(
                "thresholds",
                "What a threshold costs",
                tag("div", *(sections.chart(figure) for figure in charts), class_="cards"),
            ),
            *(_store(number, found, own[number], asked[number]) for number, found in enumerate(statistics)),
            sections.section("settings", "Settings", sections.settings(statistics)),
        ]
    )
    every = [*charts, *(figure for some in own for figure in some)]
    return _filled(statistics, body, _data(statistics, shown, every))


def _usual_budgets(found: StoreStatistics) -> tuple[int, ...]:
    """The largest of the usual contexts that the longest video would fill unmerged, up to four; the least if none."""
    most = found.info.grid.patches * found.videos.frames.most
    filled = tuple(budget for budget in _BUDGETS if budget <= most)
    return filled[-_BUDGETS_SHOWN:] or _BUDGETS[:1]


def _slider(statistics: Sequence[StoreStatistics]) -> Markup:
    now = {"tokens": "tokens", "kept": "kept", "frame": "a frame", "video": "a video"}
    rows = [
        [found.root.url, *(tag("td", id=f"now-{name}-{number}", class_="number") for name in now)]
        for number, found in enumerate(statistics)
    ]
    return tag(
        "div",
        tag("label", "threshold ", tag("output", id="threshold-value"), for_="threshold"),
        tag("span", id="threshold-note", class_="note"),
        tag("input", id="threshold", type="range", min="0", max="0", step="1"),
        table(["store", *now.values()], rows, numbers=1),
        class_="card slider",
    )


def _store(number: int, found: StoreStatistics, charts: Sequence[Figure], budgets: Sequence[int]) -> Markup:
    from dyntok.report.contexts import contexts

    merged = "What was merged in videos that keep little, and in those that keep much, at the threshold of the slider."
    return sections.section(
        f"store-{number}",
        found.root.url,
        tag("div", *(sections.chart(figure) for figure in charts), class_="cards"),
        tag("h3", "What fits a context"),
        contexts(found, budgets),
        tag("h3", "Merged patches"),
        tag("p", merged + " Each outlined run of patches is one token.", class_="note"),
        tag("div", id=f"overlays-{number}", class_="cards overlays"),
        sections.extremes(found),
        sections.breakdown(found),
        tag("h3", "Failures"),
        sections.failures(found),
        tag("h3", "Throughput"),
        sections.stages(throughput(found.root)),
    )


def _data(
    statistics: Sequence[StoreStatistics], shown: Sequence[Sequence[Overlay]], charts: Sequence[Figure]
) -> dict[str, Any]:
    """What the page's script needs. The slider stands on thresholds at which every store has exact counts."""
    common = set.intersection(*(set(found.maps.shape.edges) for found in statistics))
    lowest = min(0.0, *(found.info.thresholds[0] for found in statistics))
    steps = sorted(edge for edge in common if edge >= lowest)
    stores = [
        {
            "places": [found.maps.shape.edges.index(step) for step in steps],
            "curve": found.maps.curve(),
            "patches": found.maps.patches,
            "frames": found.maps.frames,
            "videos": found.maps.videos,
            "stored": found.info.stored_threshold,
            "rows": found.info.grid.rows,
            "cols": found.info.grid.cols,
            "overlays": [overlay.to_json() for overlay in some],
        }
        for found, some in zip(statistics, shown, strict=True)
    ]
    stored = {found.info.stored_threshold for found in statistics}
    start = min(stored & common, default=steps[-1])
    return {"steps": steps, "start": start, "stores": stores, "charts": [chart.to_json() for chart in charts]}


def _filled(statistics: Sequence[StoreStatistics], body: Markup, data: dict[str, Any]) -> str:
    from plotly.offline import get_plotlyjs

    plotly, script = _inside_script(get_plotlyjs()), _inside_script(_asset("report.js"))
    names = ", ".join(found.root.url for found in statistics)
    values = {
        "policy": _POLICY.format(_hash(plotly), _hash(script)),
        "title": tag("title", f"dyntok: {names}"),
        "name": tag("span", names),
        "version": __version__,
        "style": _asset("report.css"),
        "body": body,
        "data": data_block("data", data),
        "plotly": plotly,
        "script": script,
    }
    # One pass, so that no value can hold a place for another.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _asset("report.html"))


def _inside_script(code: str) -> str:
    """JavaScript that no script element ends early; `<\\/` means the same inside its strings."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return files("dyntok.report").joinpath("assets", name).read_text("utf-8")
