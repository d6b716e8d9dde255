"""The one place that prints. stdout carries data; notes, warnings, errors and hints go to stderr.

Nothing is coloured, on a terminal or not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from dyntok.urls import redact_text
from dyntok_cli.tables import printable


class Output:
    """How one invocation of a command talks.

    `json`: reports are one JSON document on stdout, in place of text. `quiet`: no progress and no notes; reports,
    warnings and errors stay.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    @property
    def shows_bars(self) -> bool:
        """Whether a progress bar makes sense: stderr is a terminal that can redraw a line, and not quiet."""
        return not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def report(self, document: Mapping[str, Any], text: str, *, one_line: bool = False) -> None:
        """The result of a command: `document` with --json (on one line, if there will be more), else `text`."""
        if self.json:
            _write(sys.stdout, json.dumps(document, indent=None if one_line else 2))
        else:
            _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Something worth knowing that is no data."""
        if not self.quiet:
            _tell(text)

    def hint(self, text: str) -> None:
        """The command to run next."""
        self.note(f"\nhint: {text}")

    def warn(self, text: str) -> None:
        """Something that should not be missed, quiet or not."""
        _tell(f"warning: {text}")


def print_text(text: str) -> None:
    """Data that has one form only, on stdout."""
    _write(sys.stdout, text)


def print_error(message: str, hint: str | None) -> None:
    """`error: what happened`, a blank line, `hint: what mends it`."""
    _tell(f"error: {message}")
    if hint:
        _tell(f"\nhint: {hint}")


def print_trace(text: str) -> None:
    """A traceback, for --debug."""
    _tell(text.rstrip("\n"))


def _tell(text: str) -> None:
    """A line on stderr. Messages of drivers and of users' own URLs may quote credentials; logs keep what is printed."""
    _write(sys.stderr, redact_text(text))


def _write(stream: TextIO, text: str) -> None:
    """Write a line. Names come from untrusted files: what a terminal would obey or cannot show is escaped."""
    encoding = stream.encoding or "utf-8"
    stream.write(printable(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
