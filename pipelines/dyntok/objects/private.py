"""Folders for files on their way, which nobody else can read and which do not outlive their process for long."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: folders of killed processes are left to the system's own cleaning
    fcntl = None  # type: ignore[assignment]


class PrivateFolder:
    """A new folder below the system's temporary one (`TMPDIR`), mode 0700.

    It goes with `close`, with the object, with the process, or, after a kill, with the next one that is made.

    A process holds a lock on each of its folders, which the kernel lets go when it dies; folders that nobody holds
    are removed. Raises OSError where no folder can be made.
    """

    def __init__(self) -> None:
        parent = _parent()
        with _locked(parent):
            _sweep(parent)
            self.path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
            self._lock = _lock(self.path, wait=False)
        self._finalizer = weakref.finalize(self, _remove, self.path, self._lock, os.getpid())

    def close(self) -> None:
        """Remove the folder and all in it; safe to call twice."""
        self._finalizer()


def _parent() -> Path:
    """A folder of this user's for all private folders, so that they can be told from anything else."""
    parent = Path(tempfile.gettempdir()) / f"dyntok-{os.getuid() if hasattr(os, 'getuid') else 'files'}"
    parent.mkdir(mode=0o700, exist_ok=True)
    status = parent.lstat()
    foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
    if foreign or not stat.S_ISDIR(status.st_mode):
        # Somebody made it before us, perhaps in order to read along.
        return Path(tempfile.mkdtemp(prefix="dyntok-"))
    parent.chmod(0o700)
    return parent


def _sweep(parent: Path) -> None:
    for folder in parent.glob("run-*"):
        with suppress(OSError):
            handle = _lock(folder, wait=False)
            if handle is None:
                continue
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() != owner:  # a fork does not own it
        return
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        with suppress(OSError):
            os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Folders are made and swept by one process at a time, so that none is swept before it is locked."""
    handle = _lock(folder, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock of a folder; None if another process holds it, or locks do not exist here."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle
