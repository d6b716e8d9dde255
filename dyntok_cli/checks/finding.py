"""One finding of `dyntok doctor`, and how a check comes by a package."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

OK, OPTIONAL, WARN, BAD = "ok", "optional", "warn", "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    `state` is `ok`, `optional` (not there; some uses need it), `warn` (works, but) or `bad` (`encode` cannot work).
    `hint` says what mends it; empty where nothing has to be mended.
    """

    name: str
    state: str
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def imported(module: str) -> Any:
    """The module, or None if it does not import; `python_and_packages` says so."""
    try:
        return import_module(module)
    except (ImportError, OSError):  # OSError: a shared library that does not load
        return None
