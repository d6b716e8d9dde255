"""The folder that an actor has on its node, what it prints there, and what can be read of it after its death."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dyntok.run.executors.deaths.marks import Traces, is_abandoned, kernel_kills, read_marks
from dyntok.store import StoreRoot
from dyntok.store.names import shard_name

MOST_BYTES = 64 * 2**10
MARKS_FILE, OUTPUT_FILE = "marks", "output"
FOLDER_PREFIX = "dyntok-actor-"
STALE_S = 3600.0
# Ray's signal handler, then Python's.
_CRASH = re.compile(r"^\*\*\* SIG(?:ABRT|BUS|FPE|ILL|SEGV|TRAP) received|^Fatal Python error", re.MULTILINE)
_MOST_STACKS_BYTES = 4 * 2**20


class CapturedOutput:
    """Sends stdout and stderr of this process, and of its children, into a file as well as where they went.

    Works below Python, so that what C libraries and decode processes print is caught. What was printed goes on to the
    old stderr whenever it is read here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = os.dup(2)
        self._passed_on = 0
        self._lock = threading.Lock()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.close(handle)
        faulthandler.enable(2)

    def position(self) -> int:
        """How many bytes have been printed up to now."""
        return os.fstat(2).st_size

    def since(self, position: int) -> str:
        """What was printed since, at most its last 64 KiB."""
        with self._lock:
            self._pass_on()
        return read_output(self._path, position)

    def _pass_on(self) -> None:
        end = self.position()
        with self._path.open("rb") as file:
            file.seek(max(self._passed_on, end - MOST_BYTES))
            data = file.read(end - file.tell())
        self._passed_on = end
        while data:
            data = data[os.write(self._before, data) :]


def read_output(path: Path, position: int, most_bytes: int = MOST_BYTES) -> str:
    """Text of a file from a byte on, at most its last `most_bytes`; empty if the file is gone."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(position, end - most_bytes))
            return file.read(most_bytes).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


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


def remove_scratch(root: StoreRoot, shards: Iterable[int]) -> None:
    """Remove what dead actors had written of these shards, which nobody is writing now."""
    if not root.is_local:
        return  # what is not uploaded lies on the actor's node, with its marks
    for shard in shards:
        for path in root.scratch_dir().glob(f"{shard_name(shard)}-*"):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
