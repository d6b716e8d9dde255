"""Who may write to a local store: one whole run, or the jobs of one array, each index once.

A whole run holds `.lock` alone. A job shares it with the other jobs and holds a file of its own, `.tmp/<job>.lock`,
alone; `.tmp/jobs.lock` lets jobs in one by one. The kernel frees every lock when its process dies, however it dies.

Object stores have no locks: there, two writers of one store waste work, and since both write the same bytes and the
record comes last, do no harm.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dyntok.errors import StoreError, StoreLockedError
from dyntok.run.array import ArrayJob
from dyntok.store import StoreRoot
from dyntok.store.names import LOCK_FILE, SCRATCH_FOLDER
from dyntok.store.root import explain_os_error

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind
    fcntl = None  # type: ignore[assignment]

# `status` looks whether a lock is held by taking it for a moment; a writer must not give up on that.
PATIENCE_S = 1.0
_POLL_S = 0.05
_PLAN_POLL_S = 0.2
_JOB_LOCK = re.compile(r"job-(\d+)-of-(\d+)\.lock")


@dataclass(frozen=True, slots=True)
class Writers:
    """Who holds locks of a store now: a whole run, or some jobs of an array."""

    whole: bool = False
    jobs: tuple[ArrayJob, ...] = ()

    def __bool__(self) -> bool:
        return self.whole or bool(self.jobs)

    def __str__(self) -> str:
        """`job 3 of 16 is writing`."""
        if self.whole or not self.jobs:
            return "another process is writing"
        if len(self.jobs) == 1:
            return f"{self.jobs[0]} is writing"
        return f"jobs {numbers(job.index for job in self.jobs)} of {self.jobs[0].count} are writing"


def numbers(values: Iterable[int], most: int = 20) -> str:
    """`1, 2, 3`, cut after `most`."""
    listed = list(values)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(map(str, listed[:most])) + more


@contextmanager
def store_lock(root: StoreRoot, job: ArrayJob | None = None) -> Iterator[None]:
    """Hold the store for a whole run, or for one job of an array.

    Raises:
        StoreLockedError: a whole run, the same job, or (for a whole run) any job writes to this store, or jobs of an
            array of another size do.
    """
    path = root.local_path(LOCK_FILE)
    if path is None or fcntl is None:
        yield
        return
    with _opened(root, path) as whole:
        if not _take(whole, fcntl.LOCK_SH if job else fcntl.LOCK_EX):
            raise _refused(root, Writers(whole=True) if job else writers(root))
        with _job_lock(root, path.parent / SCRATCH_FOLDER, job) if job else nullcontext():
            yield


@contextmanager
def _job_lock(root: StoreRoot, folder: Path, job: ArrayJob) -> Iterator[None]:
    with _opened(root, folder / f"{job.name}.lock") as own:
        with _opened(root, folder / "jobs.lock") as door:
            # Jobs pass the door in milliseconds.
            if not _take(door, fcntl.LOCK_EX, patience_s=60.0):
                raise StoreError(f"cannot lock {door.name}: another job holds it for a minute")
            others = [other for other in _live_jobs(folder) if other.count != job.count]
            if others:
                raise StoreLockedError(
                    f"{Writers(jobs=tuple(others))} to {root.url}; {job} would do some of their work again",
                    hint="wait for the other array, or use its --num-jobs",
                )
            if not _take(own, fcntl.LOCK_EX):
                raise _refused(root, Writers(jobs=(job,)))
        yield


@contextmanager
def plan_lock(root: StoreRoot, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to freeze the plan among the jobs of an array; waits for it, and says so once."""
    path = root.local_path(f"{SCRATCH_FOLDER}/plan.lock")
    if path is None or fcntl is None:
        yield
        return
    with _opened(root, path) as handle:
        if not _take(handle, fcntl.LOCK_EX, patience_s=0.0):
            on_wait("another job is making the plan")
            while not _take(handle, fcntl.LOCK_EX, patience_s=0.0):
                time.sleep(_PLAN_POLL_S)
        yield


def writers(root: StoreRoot) -> Writers:
    """Who writes to the store now; nobody can be seen on object stores."""
    path = root.local_path(LOCK_FILE)
    if path is None or fcntl is None:
        return Writers()
    return Writers(_is_held(path), tuple(_live_jobs(path.parent / SCRATCH_FOLDER)))


def _live_jobs(folder: Path) -> list[ArrayJob]:
    """Jobs whose lock is held, rising."""
    found: list[ArrayJob] = []
    with suppress(OSError):  # a whole run may be clearing the folder
        for path in folder.iterdir():
            match = _JOB_LOCK.fullmatch(path.name)
            if match and _is_held(path):
                found.append(ArrayJob(int(match[1]), int(match[2])))
    return sorted(found)


def _is_held(path: Path) -> bool:
    """Whether a process holds the file's lock alone."""
    with suppress(OSError), open(path, encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _opened(root: StoreRoot, path: Path) -> TextIO:
    """A file to lock, made in a folder that may be missing. Raises StoreError."""
    with explain_os_error(root.url, "write to"):
        if path.parent.name == SCRATCH_FOLDER:
            path.parent.mkdir(exist_ok=True)
        try:
            # Over NFS, sharing a lock needs the right to read and holding it alone that to write.
            return open(path, "a+", encoding="utf-8")
        except PermissionError:
            if not os.access(path, os.R_OK):
                raise
            return open(path, encoding="utf-8")  # another user's


def _take(handle: TextIO, how: int, patience_s: float = PATIENCE_S) -> bool:
    """Lock an open file; False if others hold it for so long."""
    until = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(f"cannot lock {handle.name}: {error.strerror}") from error
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)


def _refused(root: StoreRoot, holders: Writers) -> StoreLockedError:
    return StoreLockedError(
        f"{holders} to {root.url}",
        hint="wait for it, or stop it; `dyntok status` shows how far it is",
    )
