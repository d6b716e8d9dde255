"""What fits a context of so many visual tokens: a part of the page."""

from __future__ import annotations

from collections.abc import Sequence

from dyntok.advice import BudgetAdvice, advise_each
from dyntok.load import open_store
from dyntok.report.gather import StoreStatistics
from dyntok.report.markup import Markup, joined, table, tag


def contexts(found: StoreStatistics, budgets: Sequence[int]) -> Markup:
    """For each budget a table: which share of the videos fits with so many frames, at each threshold."""
    if not found.videos.totals.done:
        return tag("p", "No video is stored.")
    advices = advise_each(open_store(found.root.url), budgets)
    first = advices[0]
    note = (
        f"Share of the videos whose tokens, with a marker a row, fit; shaded from {100 * first.share:g} % on. "
        "Fewer frames than are stored are spread uniformly over the video."
    )
    if first.sampled < first.videos:
        note += f" Counted in {first.sampled:,} videos drawn at random; in every video with all frames."
    # The table that tells most apart.
    opened = max(advices, key=lambda advice: len(set(advice.most_frames.values())))
    tables = (_context(advice, advice is opened) for advice in advices)
    return joined([tag("p", note, class_="note"), *tables])


def _context(advice: BudgetAdvice, opened: bool) -> Markup:
    names = list(advice.most_frames)
    rows = [[f"{row.frames:,}", *(_cell(row.fits[name], advice.share) for name in names)] for row in advice.rows]
    most = (
        f"all {frames:,}" if frames == advice.stored_frames else f"{frames:,}" for frames in advice.most_frames.values()
    )
    rows.append([f"most for {100 * advice.share:g} %", *(tag("strong", frames) for frames in most)])
    shown = table(["frames", *(f"at {name}" for name in names)], rows, numbers=1)
    summary = tag("summary", tag("strong", f"{advice.budget:,} visual tokens"))
    return tag("details", summary, shown, open=opened)


def _cell(share: float | None, enough: float) -> Markup:
    share = share or 0.0
    return tag("td", f"{100 * share:.1f} %", class_="number fits" if share >= enough else "number")
