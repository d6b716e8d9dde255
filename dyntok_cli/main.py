"""The app, and `main`: the console script. Maps whatever happens to a message and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Never

import typer
from typer import Option

import dyntok
from dyntok_cli import errors
from dyntok_cli.commands import COMMANDS
from dyntok_cli.group import Group
from dyntok_cli.output import print_error, print_text, print_trace

app = typer.Typer(
    name="dyntok",
    cls=Group,
    help="Turn a video corpus into shards of precompressed visual tokens for video LLMs.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage or config, 3 finished with failed videos, 4 damage found, "
    "130 interrupted. `dyntok demo` shows all of it on four short clips.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"dyntok {dyntok.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a video corpus into shards of precompressed visual tokens for video LLMs."""


def _stand_in() -> None:
    """Stands for a command in help and completion; `Group` loads the command itself."""


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_stand_in)


def main(argv: Sequence[str] | None = None) -> Never:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code. Never raises what a user could cause."""
    command = next((word for word in arguments if word in COMMANDS), None)
    try:
        # With standalone_mode off, typer.Exit comes back as its code, as does Ctrl-C; all else is raised. A closed pipe
        # ends quietly inside Typer.
        code = app(args=list(arguments), prog_name="dyntok", standalone_mode=False)
        if code == errors.INTERRUPTED:
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost handler
        if "--debug" in arguments and not isinstance(error, KeyboardInterrupt):
            print_trace("".join(traceback.format_exception(error)))
        failure = errors.explain(error, command)
        print_error(failure.message, failure.hint)
        return failure.exit_code
    return int(code or errors.OK)


def _stop(number: int, frame: FrameType | None) -> None:
    """Batch schedulers send SIGTERM: stop as Ctrl-C does, so that the store can be resumed."""
    raise KeyboardInterrupt
