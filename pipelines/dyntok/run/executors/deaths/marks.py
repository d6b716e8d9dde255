"""What outlives a process: which videos it had begun and not finished when it died, and whether the kernel kills.

One short line a step, appended with a single write, so that the kernel keeps them whatever happens to the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dyntok.records import PlanEntry, VideoRow
from dyntok.run.tell.observer import RunObserver
from dyntok.store.root import explain_os_error

try:
    import fcntl
except ImportError:  # Windows: marks are kept there, but nobody can tell whether their process lives
    fcntl = None  # type: ignore[assignment]

Place = tuple[int, int]
"""Shard and position of a video."""

# Times that a process may be killed from outside over one video before that counts against it.
KILLS_FORGIVEN = 4


@dataclass(frozen=True, slots=True)
class Traces:
    """What a dead process left.

    `shards` were begun and not committed. `suspects` are the videos that may have killed it, in the order in which
    they were begun: those on their way to or in the model or, if there are none, those that waited to be written.
    """

    shards: frozenset[int] = frozenset()
    suspects: tuple[Place, ...] = ()


class Marks(RunObserver):
    """Writes the marks of one process. The file is locked while it is open.

    Raises StoreError if the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[str, Place] = {}
        with explain_os_error(str(path), "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        if fcntl is not None:
            with suppress(OSError):  # without locks, nobody takes these marks for abandoned
                fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def begun(self, entry: PlanEntry) -> None:
        self._unwritten[entry.id] = entry.shard, entry.position
        self._write(f"begun {entry.shard} {entry.position}")

    def encoded(self, entry: PlanEntry) -> None:
        if entry.id in self._unwritten:
            self._write(f"encoded {entry.shard} {entry.position}")

    def video(self, row: VideoRow) -> None:
        place = self._unwritten.pop(row.id, None)
        if place is not None:
            self._write(f"written {place[0]} {place[1]}")

    def shard(self, shard: int, bytes_written: int) -> None:
        self._write(f"shard {shard}")

    def close(self) -> None:
        """Stop marking; nothing is left for a later run to find, for the process lives."""
        with suppress(OSError):  # a later run tries these videos alone, which costs it time and nothing else
            self._path.unlink(missing_ok=True)
        os.close(self._handle)

    def _write(self, line: str) -> None:
        with suppress(OSError):  # a full disk stops the run elsewhere, in words that name the shard
            os.write(self._handle, f"{line}\n".encode())


def read_marks(path: Path) -> Traces:
    """What the marks in a file say. A line that was cut short ends the reading.

    A file that is gone or may not be read says nothing.
    """
    try:
        lines = path.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    except (FileNotFoundError, PermissionError):
        return Traces()
    return traces(lines)


def traces(lines: Iterable[str]) -> Traces:
    """See `read_marks`."""
    steps: dict[Place, str] = {}
    shards: set[int] = set()
    for line in lines:
        step, *numbers = line.split(" ")
        try:
            shard, *position = map(int, numbers)
        except ValueError:
            break
        if step == "shard":
            shards.discard(shard)
        elif step in ("begun", "encoded") and position:
            shards.add(shard)
            steps[shard, position[0]] = step
        elif step == "written" and position:
            steps.pop((shard, position[0]), None)
        else:
            break
    working = tuple(place for place, step in steps.items() if step == "begun")
    return Traces(frozenset(shards), working or tuple(steps))


def is_abandoned(path: Path) -> bool:
    """Whether the process that wrote these marks is gone; not where that cannot be told."""
    if fcntl is None:
        return False
    try:
        # Over NFS, holding a lock alone takes the right to write, which another user's file may not give.
        with open(path, "rb+" if os.access(path, os.W_OK) else "rb", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def kernel_kills() -> int:
    """Processes that the kernel has killed for want of memory, in any control group; 0 where it does not say."""
    with suppress(OSError), open("/proc/vmstat", encoding="ascii") as counters:
        return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)
    return 0
