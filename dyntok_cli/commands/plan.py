"""`dyntok plan`: what encode would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyntok_cli.configuring import encode_config
from dyntok_cli.options import ConfigFile, Debug, Inputs, Json, Quiet, with_settings
from dyntok_cli.output import Output
from dyntok_cli.rendering import plan_text

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig


@with_settings
def plan(
    *,
    inputs: Inputs = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Freeze the plan into this store, for the jobs of an array."
        ),
    ] = None,
    config: ConfigFile = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="With --out: add inputs that the store does not know yet.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --out: add another attempt for failed videos.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Say what `encode` would do.

    Shows videos, shards, and the tokens and bytes to expect at each threshold. Takes the flags of `encode`, so that a
    command can be tried before it is run. Nothing is written, unless --out is given: then the plan is frozen there,
    and nothing is encoded.
    """
    from dyntok.errors import UsageError

    output = Output(json=json, quiet=quiet)
    if out is None and (extend or retry_failed):
        raise UsageError("--extend and --retry-failed change a store's plan", hint="add --out DIR")
    chosen = encode_config(settings, config, inputs=inputs or [], out=out)
    if out is None:
        report_plan(output, inputs or [], chosen)
        return

    from dyntok.run import freeze
    from dyntok_cli.progress import Progress

    with Progress(output) as observer:
        report = freeze(
            inputs or [], out, chosen, extend=extend, retry_failed=retry_failed, observer=observer
        )
    output.report(report.to_json(), plan_text(report))


def report_plan(output: Output, inputs: list[str], config: EncodeConfig) -> None:
    """Estimate and print."""
    from dyntok.run import estimate

    report = estimate(inputs, config)
    output.report(report.to_json(), plan_text(report))
