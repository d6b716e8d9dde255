"""Making sure that what was written outlives a power cut."""

from __future__ import annotations

import ctypes
import os
import sys
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
