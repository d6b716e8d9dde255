"""One writer at a time."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from dyntok.errors import StoreError, StoreLockedError
from dyntok.store import StoreRoot
from dyntok.store.names import LOCK_FILE

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind
    fcntl = None  # type: ignore[assignment]


@contextmanager
def store_lock(root: StoreRoot) -> Iterator[None]:
    """Hold the store's lock. The kernel frees it when the process dies, however it dies.

    Object stores have no locks: there, two writers of one store waste work, and since both write the same bytes and
    the record comes last, do no harm.

    Raises:
        StoreLockedError: another process writes to this store.
    """
    path = root.local_path(LOCK_FILE)
    if path is None or fcntl is None:
        yield
        return
    try:
        handle = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held over the yield
    except OSError as error:
        raise StoreError(f"cannot write to {root.url}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(f"cannot lock {path}: {error.strerror}") from error
            raise StoreLockedError(
                f"another process is writing to {root.url}",
                hint="wait for it, or stop it; `dyntok status` shows how far it is",
            ) from error
        yield


def is_locked(root: StoreRoot) -> bool:
    """Whether a process holds the lock now; always False on object stores."""
    path = root.local_path(LOCK_FILE)
    if path is None or fcntl is None or not path.exists():
        return False
    with open(path, encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
