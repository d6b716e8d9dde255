"""Advice on a budget: for `dyntok plan --budget`, counted in a store or expected from published ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dyntok_cli.output import Output
from dyntok_cli.tables import count, pairs, ratio, several, table

if TYPE_CHECKING:
    from dyntok.advice import BudgetAdvice
    from dyntok.merging import MarkerMode

_COUNTED = {
    "row": "a marker a row counted",
    "frame": "a marker a frame counted",
    "video": "one marker counted",
    "none": "no markers",
}
# Which threshold the paper's figure 4 favours, below and above so many visual tokens.
_LOW_BUDGET, _LOW_AIM, _HIGH_AIM = 10_000, 0.5, 0.45
_MEDIAN = "Tokens and markers of the median video with so many frames, and the share of the videos that fit:"
_EXPECTED = "Tokens and markers to expect of a video with so many frames, and whether they fit:"
_PAPER = (
    "The DynTok paper found threshold 0.5 best below about 10,000 visual tokens, with what it saves spent on more\n"
    "frames; above, more frames at a slightly lower threshold."
)
_ESTIMATE = (
    "An estimate: every video is taken to keep what the DynTok paper reports on average (44.4 % at 0.6, 30 % at 0.5,\n"
    "20 % at 0.4), and to be long enough. No video was opened. Encode some, and ask again with the store."
)


def is_store(path: str) -> bool:
    """Whether a folder or URL is a store."""
    from dyntok.errors import DyntokError
    from dyntok.store import StoreRoot

    try:
        return StoreRoot.open(path).exists("dataset.json")
    except DyntokError:
        return False


def advise_store(output: Output, path: str, budget: int, markers: MarkerMode) -> None:
    """Count and print."""
    import dyntok
    from dyntok.advice import advise

    opened = dyntok.open(path)
    advice = advise(opened, budget, markers)
    output.report({"store": opened.root.url, "advice": advice.to_json()}, advice_text(advice))
    best = {name: frames for name, frames in advice.most_frames.items() if frames}
    if best:
        aim = _LOW_AIM if budget < _LOW_BUDGET else _HIGH_AIM
        name, frames = min(best.items(), key=lambda item: abs(float(item[0]) - aim))
        output.hint(
            f"video.at(threshold={float(name):g}, frames={frames}, budget={budget}, markers={markers!r}) reads so many "
            "and merges further the few videos that do not fit"
        )


def advise_inputs(output: Output, report: dict[str, Any], text: str, budget: int, markers: MarkerMode) -> None:
    """The plan that was made, and what to expect of the budget."""
    from dyntok.advice import expect
    from dyntok.records import Grid

    thresholds = [float(name) for name in report["tokens"]]
    advice = expect(budget, Grid(**report["model"]["grid"]), thresholds, markers, videos=report["videos"])
    output.report({**report, "advice": advice.to_json()}, f"{text}\n\n{advice_text(advice)}")


def advice_text(advice: BudgetAdvice) -> str:
    """As text."""
    lines = [("budget", f"{count(advice.budget)} visual tokens, {_COUNTED[advice.markers]}")]
    if not advice.estimated:
        fewer = "all of them" if advice.sampled == advice.videos else f"{count(advice.sampled)} drawn at random"
        lines += [
            ("videos", f"{count(advice.videos)}; with fewer frames than are stored, counted in {fewer}"),
            ("frames", f"{count(advice.stored_frames)} at most are stored"),
        ]
    what = _EXPECTED if advice.estimated else _MEDIAN
    note = _ESTIMATE if advice.estimated else _PAPER
    return f"{pairs(lines)}\n\n{what}\n\n{_frames_table(advice)}\n\n{_most_frames_table(advice)}\n\n{note}"


def _frames_table(advice: BudgetAdvice) -> str:
    names = list(advice.most_frames)
    rows = []
    for row in advice.rows:
        cells = [count(row.frames)]
        for name in names:
            share, length = row.fits[name], row.length[name]
            fits = ("yes" if length <= advice.budget else "no") if share is None else ratio(share, 1)
            cells += [count(round(length)), fits]
        rows.append(cells)
    headers = ["frames", *(cell for name in names for cell in (f"at {name}", "fit"))]
    return table(headers, rows)


def _most_frames_table(advice: BudgetAdvice) -> str:
    if advice.estimated:
        headers = ("threshold", "frames that fit, about")
    else:
        headers = ("threshold", f"most frames that fit for {100 * advice.share:g} % of the videos")
    rows = []
    for name, frames in advice.most_frames.items():
        all_stored = not advice.estimated and frames == advice.stored_frames
        rows.append((name, f"{several(frames, 'frame')}, all that are stored" if all_stored else count(frames)))
    return table(headers, rows)
