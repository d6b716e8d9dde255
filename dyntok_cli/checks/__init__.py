"""What `dyntok doctor` looks at. Each check is a function that gives findings; none raises for what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dyntok_cli.checks.decoding import codecs, decoders
from dyntok_cli.checks.finding import BAD, OK, OPTIONAL, WARN, Check
from dyntok_cli.checks.machine import cluster, devices, resources
from dyntok_cli.checks.packages import extras, python_and_packages
from dyntok_cli.checks.storage import model_cache, speed, writing

__all__ = ["BAD", "OK", "OPTIONAL", "WARN", "Check", "all_checks"]


def all_checks(folder: Path) -> Iterator[Check]:
    """Everything, in the order it is shown; `folder` is where a store would be written."""
    yield from python_and_packages()
    yield from devices()
    yield from decoders()
    yield from codecs()
    yield from resources()
    yield from cluster()
    yield from writing(folder)
    yield from speed(folder)
    yield from extras()
    yield from model_cache()
