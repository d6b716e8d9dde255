"""From an exception to what the user reads and the exit code."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from dyntok.errors import DamageError, DyntokError, UsageError

OK, FAILURE, USAGE, FAILED_VIDEOS, DAMAGE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_RESUMABLE = {
    "encode": "what was committed stays; the same command resumes",
    "demo": "what was committed stays; the same command resumes",
    "convert": "what was committed stays; the same command resumes",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What to print and how to exit."""

    message: str
    hint: str | None
    exit_code: int


def explain(error: BaseException, command: str | None) -> Failure:
    """`command` is the one that was running, None if none was chosen yet."""
    if isinstance(error, DyntokError):
        return Failure(error.message, error.hint, _code(error))
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", _RESUMABLE.get(command or ""), INTERRUPTED)
    if isinstance(error, typer.TyperException):
        program = f"dyntok {command}" if command else "dyntok"
        message = error.format_message().removesuffix(".")
        return Failure(message[:1].lower() + message[1:], f"`{program} --help` shows the usage", USAGE)
    text = " ".join(str(error).split()) or "no message"
    return Failure(
        f"unexpected {type(error).__name__}: {text}",
        "run it again with --debug to see the traceback",
        FAILURE,
    )


def _code(error: DyntokError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return DAMAGE if isinstance(error, DamageError) else FAILURE
