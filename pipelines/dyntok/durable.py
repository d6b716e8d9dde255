"""Writing files so that nobody sees a part of one, and making sure that they outlive a power cut."""

from __future__ import annotations

import ctypes
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_SYNC_FILE_RANGE_WRITE = 2


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replaced(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A new, empty file beside `path`, which takes its place in one step unless there is an error. Raises OSError.

    `sync`: what is written outlives a power cut.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.touch(exist_ok=False)  # so that nobody's link is followed
        yield aside
        if sync:
            fsync_path(aside)
        aside.replace(path)
        if sync:
            fsync_path(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def begin_write_out(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel begin to write a stretch of a file to the disk, so that a later fsync has less to wait for.

    Promises nothing, and does nothing where there is no `sync_file_range` (Linux has it). posix_fadvise would do for
    it too, but waits for every CPU of a busy machine in passing.
    """
    if (call := _sync_file_range()) is not None:
        call(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


def begin_write_out_path(path: Path) -> None:
    """`begin_write_out` for the whole of a file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        begin_write_out(handle, 0, 0)  # length 0 is to the end
    finally:
        os.close(handle)


@cache
def _sync_file_range() -> Any:
    if sys.platform != "linux":
        return None
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
