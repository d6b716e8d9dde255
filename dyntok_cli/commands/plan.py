"""`dyntok plan`: what encode would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from dyntok_cli.advice import advise_inputs, advise_store, is_store
from dyntok_cli.configuring import encode_config
from dyntok_cli.options import ConfigFile, Debug, Inputs, Json, Quiet, with_settings
from dyntok_cli.output import Output
from dyntok_cli.rendering import plan_text

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig
    from dyntok.merging import MarkerMode


@with_settings
def plan(
    *,
    inputs: Inputs = None,
    out: Annotated[
        str | None,
        Option("--out", "-o", metavar="DIR", help="Freeze the plan into this store, for the jobs of an array."),
    ] = None,
    config: ConfigFile = None,
    extend: Annotated[
        bool, Option("--extend", help="With --out: add inputs that the store does not know yet.")
    ] = False,
    retry_failed: Annotated[
        bool, Option("--retry-failed", help="With --out: add another attempt for failed videos.")
    ] = False,
    budget: Annotated[
        int | None,
        Option(
            metavar="TOKENS",
            min=1,
            help="Say how many frames fit so many visual tokens, at each threshold. INPUT may be a store here.",
        ),
    ] = None,
    markers: Annotated[
        Literal["row", "frame", "video", "none"] | None,
        Option(help="With --budget: the markers that count. [default: row]"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Say what `encode` would do.

    Shows videos, shards, and the tokens and bytes to expect at each threshold. Takes the flags of `encode`, so that a
    command can be tried before it is run. Nothing is written, unless --out is given: then the plan is frozen there,
    and nothing is encoded.

    With --budget also how many frames fit a context, at each threshold: counted exactly in a store, estimated for
    inputs.
    """
    from dyntok.errors import UsageError

    output = Output(json=json, quiet=quiet)
    if out is None and (extend or retry_failed):
        raise UsageError("--extend and --retry-failed change a store's plan", hint="add --out DIR")
    if budget is None and markers is not None:
        raise UsageError("--markers is about a budget", hint="add --budget TOKENS")
    if budget is not None and out is not None:
        raise UsageError("--budget asks, --out freezes a plan", hint="give one of them; `dyntok plan STORE --budget N`")
    if budget is not None and len(inputs or []) == 1 and is_store((inputs or [""])[0]):
        if settings or config is not None:
            raise UsageError("the store has its settings already", hint="leave them out")
        advise_store(output, (inputs or [""])[0], budget, markers or "row")
        return
    chosen = encode_config(settings, config, inputs=inputs or [], out=out)
    if out is None:
        report_plan(output, inputs or [], chosen, budget, markers or "row")
        return

    from dyntok.run import freeze
    from dyntok_cli.progress import RunProgress

    with RunProgress(output) as observer:
        report = freeze(inputs or [], out, chosen, extend=extend, retry_failed=retry_failed, observer=observer)
    output.report(report.to_json(), plan_text(report))


def report_plan(
    output: Output,
    inputs: list[str],
    config: EncodeConfig,
    budget: int | None = None,
    markers: MarkerMode = "row",
) -> None:
    """Estimate and print; with a budget, also how many frames to expect in it."""
    from dyntok.run import estimate

    report = estimate(inputs, config)
    if budget is None:
        output.report(report.to_json(), plan_text(report))
    else:
        advise_inputs(output, report.to_json(), plan_text(report), budget, markers)
