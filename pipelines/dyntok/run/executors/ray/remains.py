"""The folder that an actor has on its node, and what can be read from it after its death."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dyntok.run.executors.deaths.marks import Traces, is_abandoned, kernel_kills, read_marks
from dyntok.run.executors.ray.output import read_output

MARKS_FILE, OUTPUT_FILE = "marks", "output"
FOLDER_PREFIX = "dyntok-actor-"
STALE_S = 3600.0
# Ray's signal handler, then Python's.
_CRASH = re.compile(r"^\*\*\* SIG(?:ABRT|BUS|FPE|ILL|SEGV|TRAP) received|^Fatal Python error", re.MULTILINE)
_MOST_STACKS_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead actor left on its node, and how many processes the kernel there had killed by then.

    `crashed`: the process died of what it did, and not of a kill.
    """

    traces: Traces
    output: str
    crashed: bool = False
    kernel_kills: int = 0


def read_remains(folder: str, position: int = 0) -> Remains:
    """Read what a dead actor left on this node, and remove it."""
    path = Path(folder)
    output = read_output(path / OUTPUT_FILE, position)
    # Every thread's stack follows these words, which may be more than is kept of the output.
    crashed = _CRASH.search(read_output(path / OUTPUT_FILE, position, _MOST_STACKS_BYTES)) is not None
    remains = Remains(read_marks(path / MARKS_FILE), output, crashed, kernel_kills())
    shutil.rmtree(path, ignore_errors=True)
    return remains


def remove_stale_folders() -> None:
    """Remove what actors left behind whose driver died with them, once nobody can ask for it any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            old = time.time() - folder.stat().st_mtime > STALE_S
        except OSError:
            continue
        if old and is_abandoned(folder / MARKS_FILE):
            shutil.rmtree(folder, ignore_errors=True)
