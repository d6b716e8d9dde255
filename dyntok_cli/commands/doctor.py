"""`dyntok doctor`: is everything here that a run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from dyntok_cli import errors
from dyntok_cli.options import Debug, Json
from dyntok_cli.output import Output
from dyntok_cli.tables import table


def doctor(
    folder: Annotated[
        str, Argument(metavar="FOLDER", help="Where a store would be written.", show_default=False)
    ] = ".",
    *,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that this machine can run dyntok.

    Looks at versions, devices, decoders, memory, the model cache, and whether FOLDER (default: here) can hold a
    store, and how fast it is: 64 MB are written there, read back and removed.

    Exit code 1 means that something a run needs is missing or broken.
    """
    from dyntok_cli.checks import BAD, OK, all_checks

    checks = list(all_checks(Path(folder)))
    sound = all(check.state != BAD for check in checks)
    text = table(("check", "state", "found"), [(c.name, c.state, c.detail) for c in checks])
    hints = [f"{check.name}: {check.hint}" for check in checks if check.state != OK and check.hint]
    output = Output(json=json)
    output.report({"ok": sound, "checks": [check.to_json() for check in checks]}, text)
    for hint in hints:
        output.hint(hint)
    if not sound:
        raise typer.Exit(errors.FAILURE)
