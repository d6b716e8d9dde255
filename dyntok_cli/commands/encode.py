"""`dyntok encode`: videos into a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyntok_cli import errors
from dyntok_cli.commands.plan import report_plan
from dyntok_cli.configuring import DEMO_MODEL, encode_config
from dyntok_cli.options import ConfigFile, Debug, Inputs, Json, Quiet, with_settings
from dyntok_cli.output import Output
from dyntok_cli.rendering import encode_text, failures_text

if TYPE_CHECKING:
    from dyntok.run import EncodeReport

FIRST_FAILURES = 10


@with_settings
def encode(
    *,
    inputs: Inputs = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder or URL of the store. Required.")
    ] = None,
    config: ConfigFile = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Encode inputs that the store does not know yet into new shards.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed videos again, in new shards.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, as `plan` does.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Encode videos into a store, or resume it.

    Running the same command again resumes it. Without INPUT, the store at --out is resumed with its own settings.
    A video that fails does not stop the run: it is listed with its reason, and the exit code is 3.
    """
    from dyntok.errors import UsageError

    output = Output(json=json, quiet=quiet)
    if out is None and not dry_run:
        raise UsageError(
            "no --out was given", hint="add `--out DIR`, the folder or URL of the store to write"
        )
    chosen = encode_config(settings, config, inputs=inputs or [], out=out)
    if chosen.model == DEMO_MODEL:
        output.warn(
            "model demo is the built-in demo encoder, for trying things; no LLM understands its tokens"
        )
    if dry_run or out is None:
        report_plan(output, inputs or [], chosen)
        return

    from dyntok.run import encode as run_encode
    from dyntok_cli.progress import Progress

    with Progress(output) as observer:
        report = run_encode(
            inputs or [], out, chosen, extend=extend, retry_failed=retry_failed, observer=observer
        )
    report_encoding(output, report, encode_text(report))


def report_encoding(
    output: Output, report: EncodeReport, text: str, more: dict[str, Any] | None = None
) -> None:
    """Print the outcome of a run, and its first failures; exits with 3 if there are any.

    `more` is added to the JSON document.
    """
    document = {**report.to_json(), **(more or {})}
    if not report.failed:
        output.report(document, text)
        return
    failures = failures_text(report.failures[:FIRST_FAILURES], report.failed)
    output.report(document, f"{text}\n\n{failures}")
    output.hint(
        f"`dyntok status {report.out} --failed` lists all failures, "
        f"`dyntok encode --out {report.out} --retry-failed` tries them again"
    )
    raise typer.Exit(errors.FAILED_VIDEOS)
