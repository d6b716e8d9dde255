"""`dyntok status`: how far a store is, and the last step of a job array."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from dyntok_cli import errors
from dyntok_cli.options import Debug, Json, Store
from dyntok_cli.output import Output
from dyntok_cli.rendering import failures_text, shards_table, status_text

if TYPE_CHECKING:
    from dyntok.run import StatusReport

DONE_STATES = ("complete", "encoded")


def status(
    store: Store,
    *,
    failed: Annotated[bool, Option("--failed", help="List the failed videos with their reasons.")] = False,
    shards: Annotated[bool, Option("--shards", help="List every shard.")] = False,
    watch: Annotated[
        float | None,
        Option(
            metavar="SECONDS",
            min=0.1,
            help="Show it again every so often, until every shard is done and nothing writes any more.",
        ),
    ] = None,
    finalize: Annotated[
        bool, Option("--finalize", help="Complete a store that a job array has encoded: index and manifest.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how far a store is.

    Counts videos and shards that are done, failed and pending, and the pace, also while runs are writing.
    With --finalize, completes a store whose shards were encoded by jobs; exit code 3 if it has failed videos.
    """
    from dyntok.errors import UsageError
    from dyntok.run import StoreWatch
    from dyntok.run import finalize as run_finalize

    output = Output(json=json)
    if finalize:
        if watch is not None:
            raise UsageError("--finalize and --watch do not go together", hint="watch first, then finalize")
        run_finalize(store)
    watched = StoreWatch(store)
    while True:
        report = watched.status(shards=shards)
        show(output, report, failed=failed, one_line=watch is not None)
        if watch is None or (report.state in DONE_STATES and not report.running):
            break
        time.sleep(watch)
    if report.state == "encoded":
        output.hint(f"`dyntok status {store} --finalize` writes the index and the manifest")
    if finalize and report.failed:
        raise typer.Exit(errors.FAILED_VIDEOS)


def show(output: Output, report: StatusReport, *, failed: bool, one_line: bool) -> None:
    """Print one report; `one_line` puts a JSON document on a line of its own, to be read one by one."""
    text = status_text(report)
    if report.shard_list:
        text = f"{text}\n\n{shards_table(report.shard_list)}"
    if failed and report.failures:
        text = f"{text}\n\n{failures_text(report.failures, report.failed)}"
    if one_line:
        text = f"{time.strftime('%H:%M:%S')}\n{text}\n"
    output.report(report.to_json(), text, one_line=one_line)
