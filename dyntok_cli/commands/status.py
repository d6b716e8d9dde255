"""`dyntok status`: how far a store is."""

from __future__ import annotations

from typing import Annotated

import typer

from dyntok_cli.options import Debug, Json, Store
from dyntok_cli.output import Output
from dyntok_cli.rendering import failures_text, status_text


def status(
    store: Store,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="List the failed videos with their reasons.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how far a store is.

    Counts videos and shards that are done, failed and pending, also while a run is writing.
    """
    from dyntok.run import status as run_status

    report = run_status(store)
    text = status_text(report)
    if failed and report.failures:
        text = f"{text}\n\n{failures_text(report.failures, report.failed)}"
    Output(json=json).report(report.to_json(), text)
