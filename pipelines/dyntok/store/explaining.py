"""From an error of the operating system or of an object store to a StoreError that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from dyntok.errors import StoreError, StoreUnavailableError
from dyntok.objects import ObjectStoreError
from dyntok.urls import redact, redact_text

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explain_os_error(where: str, action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        raise store_error(error, where, action) from error


def store_error(error: OSError, where: str, action: str) -> StoreError:
    """The StoreError for an OSError; StoreUnavailableError where an object store cannot be asked."""
    reason = redact_text(error.strerror or str(error)) or type(error).__name__
    message = f"cannot {action} {redact(where)}: {reason}"
    if isinstance(error, ObjectStoreError) and error.fault == "busy":
        return StoreUnavailableError(
            message, hint="run the same command again when the object store answers: finished shards are kept"
        )
    if isinstance(error, ObjectStoreError) and error.fault == "denied":
        return StoreUnavailableError(message, hint="check the credentials, and what they allow on the object store")
    hint = None
    if error.errno in _FULL:
        hint = "free some space, then run the same command again: finished shards are kept"
    elif error.errno == errno.EROFS:
        hint = "that file system is read-only: give --out a folder elsewhere"
    elif isinstance(error, PermissionError):
        hint = "check the permissions of the store; `dyntok doctor FOLDER` tries whether one can be written there"
    return StoreError(message, hint=hint)
