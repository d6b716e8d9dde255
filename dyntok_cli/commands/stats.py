"""`dyntok stats`: figures of whole stores."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from dyntok.errors import UsageError
from dyntok_cli.options import Debug, Json, Quiet
from dyntok_cli.output import Output
from dyntok_cli.statistics import comparison_text, stats_text


def stats(
    stores: Annotated[list[str], Argument(metavar="STORE", help="Folders or URLs of stores.", show_default=False)],
    *,
    by: Annotated[
        str | None, Option(metavar="COLUMN", help="Also sums for each value of a column of the manifest.")
    ] = None,
    html: Annotated[
        str | None, Option(metavar="FILE.html", help="Write a report: one page that needs no network.")
    ] = None,
    thumbnails: Annotated[
        bool, Option("--thumbnails/--no-thumbnails", help="Show frames of the sources in the report.")
    ] = True,
    budget: Annotated[
        list[int] | None,
        Option(
            metavar="TOKENS",
            min=1,
            help="A context for the report to say what fits in it; may be repeated. [default: usual sizes]",
        ),
    ] = None,
    parquet: Annotated[
        str | None, Option(metavar="FILE.parquet", help="Write tables: the videos, and the curve.")
    ] = None,
    recompute: Annotated[
        bool, Option("--recompute", help="Count again from the similarity maps of every video.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the figures of whole stores.

    Totals, tokens at each threshold, distributions over videos, frames and groups, and error classes.
    With several stores, side by side.
    """
    from dyntok.report import gather, write_tables
    from dyntok_cli.progress import CountingBar

    output = Output(json=json, quiet=quiet)
    if html is not None:
        from dyntok.report.page import check_plotly, save_report

        check_plotly()
    elif budget:
        raise UsageError(
            "--budget is about the report",
            hint="add --html FILE.html; in text: `dyntok plan STORE --budget N`",
        )
    found = []
    for store in stores:
        with CountingBar(output, "reading", "shard") as bar:
            found.append(gather(store, by=by, recompute=recompute, on_progress=bar))
    if parquet is not None:
        output.note(f"wrote {' and '.join(write_tables(found, parquet))}")
    if html is not None:
        save_report(found, html, thumbnails=thumbnails, budgets=budget or ())
        output.note(f"wrote {html}")
    documents = [statistics.to_json() for statistics in found]
    text = "\n\n\n".join(map(stats_text, documents)) + comparison_text(documents)
    output.report(documents[0] if len(documents) == 1 else {"stores": documents}, text)
