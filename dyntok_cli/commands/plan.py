"""`dyntok plan`: what encode would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dyntok_cli.configuring import encode_config
from dyntok_cli.options import ConfigFile, Debug, Inputs, Json, with_settings
from dyntok_cli.output import Output
from dyntok_cli.rendering import plan_text

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig


@with_settings
def plan(
    *,
    inputs: Inputs = None,
    config: ConfigFile = None,
    json: Json = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Say what `encode` would do.

    Shows videos, shards, and the tokens and bytes to expect at each threshold; nothing is written. Takes the flags
    of `encode`, so that a command can be tried before it is run.
    """
    report_plan(
        Output(json=json), inputs or [], encode_config(settings, config, inputs=inputs or [], out=None)
    )


def report_plan(output: Output, inputs: list[str], config: EncodeConfig) -> None:
    """Estimate and print."""
    from dyntok.run import estimate

    report = estimate(inputs, config)
    output.report(report.to_json(), plan_text(report))
