"""The bytes of a video: a local file, an fsspec URL, or a stretch of a tar, as one seekable read-only file."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

import fsspec

from dyntok.errors import VideoError
from dyntok.records import SourceRef

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def display_name(ref: SourceRef) -> str:
    """A short name for messages, without folders, which differ between machines, and without credentials."""
    name = ref.path.split("?", 1)[0].replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return name if ref.is_whole_file else f"{name} at byte {ref.offset}"


def local_path(ref: SourceRef) -> str | None:
    """The path of a whole local file, None for anything else."""
    return ref.path if ref.is_whole_file and not _URL.match(ref.path) else None


class SourceFile:
    """A read-only file object for PyAV. Raises VideoError `not_found`, `unreadable` and nothing else.

    The first error is kept in `error`, since FFmpeg may take a failed read for the end of the file.
    """

    def __init__(self, ref: SourceRef, name: str) -> None:
        self._name = name
        self._position = 0
        self._start = ref.offset or 0
        self._file: Any = None
        self._descriptor = -1
        self.error: VideoError | None = None
        try:
            if _URL.match(ref.path):
                self._file = fsspec.open(ref.path, "rb").open()
                end = self._file.seek(0, os.SEEK_END)
            else:
                # A named pipe that took a file's place must not make us wait for its writer.
                self._descriptor = os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                status = os.fstat(self._descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise VideoError("unreadable", f"{name} is not a regular file")
                end = status.st_size
        except VideoError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._read_error(error) from error
        available = max(0, end - self._start)
        self.size = available if ref.length is None else ref.length
        if self.size > available:
            self.close()
            raise VideoError("changed", f"{name} reaches beyond the end of its tar")

    def read(self, count: int = -1) -> bytes:
        remaining = max(0, self.size - self._position)
        data = self._read_at(self._start + self._position, remaining if count < 0 else min(count, remaining))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def check(self) -> None:
        """Raise the error of an earlier read, if there was one."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_at(self, offset: int, count: int) -> bytes:
        if count <= 0:
            return b""
        try:
            if self._file is None:
                return os.pread(self._descriptor, count, offset)
            self._file.seek(offset)
            return bytes(self._file.read(count))
        except Exception as error:
            self.error = self.error or self._read_error(error)
            raise self.error from error

    def _read_error(self, error: Exception) -> VideoError:
        """Storage drivers raise errors of every kind, and their texts may quote a URL and its secrets."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return VideoError("not_found", f"{self._name} does not exist")
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return VideoError("unreadable", f"{self._name} cannot be read: {reason}")
