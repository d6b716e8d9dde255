"""From an exception to what the user reads and the exit code."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from dyntok.errors import DamageError, DyntokError, UsageError

OK, FAILURE, USAGE, FAILED_VIDEOS, DAMAGE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_RESUMABLE = ("encode", "demo", "convert")
_SUGGESTIONS = 2


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
        hint = "what was committed stays; the same command resumes" if command in _RESUMABLE else None
        return Failure("interrupted", hint, INTERRUPTED)
    if isinstance(error, typer.TyperException):
        return _usage(error, f"dyntok {command}" if command else "dyntok")
    text = " ".join(str(error).split()) or "no message"
    return Failure(
        f"unexpected {type(error).__name__}: {text}",
        "run it again with --debug to see the traceback",
        FAILURE,
    )


def _usage(error: typer.TyperException, program: str) -> Failure:
    """What Typer says of the command line, with what it takes for the intended word as part of the hint."""
    similar = [f"`{flag}`" for flag in getattr(error, "possibilities", None) or ()][:_SUGGESTIONS]
    message = (error.message if similar else error.format_message()).removesuffix(".")
    message, _, commands = message.partition(". Did you mean ")
    if commands:
        words = commands.removesuffix("?").replace("'", "").split(", ")
        similar = [f"`dyntok {word}`" for word in words[:_SUGGESTIONS]]
    meant = f"did you mean {' or '.join(similar)}? " if similar else ""
    return Failure(message[:1].lower() + message[1:], f"{meant}`{program} --help` shows the usage", USAGE)


def _code(error: DyntokError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return DAMAGE if isinstance(error, DamageError) else FAILURE
