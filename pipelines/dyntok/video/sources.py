"""The bytes of a video: a local file, an fsspec URL, or a stretch of a tar, as one seekable read-only file."""

from __future__ import annotations

import os
import stat

from dyntok.errors import VideoError
from dyntok.objects import ObjectFile, ObjectStoreError, Remote
from dyntok.records import SourceRef
from dyntok.urls import redact, redact_text, url_protocol

_LOCAL = ("file", "local")


def display_name(ref: SourceRef) -> str:
    """A short name for messages, without folders, which differ between machines, and without credentials."""
    name = redact(ref.path).split("?", 1)[0].replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return name if ref.is_whole_file else f"{name} at byte {ref.offset}"


def is_remote(ref: SourceRef) -> bool:
    """Whether the bytes are not in a file of this machine."""
    return url_protocol(ref.path) not in (None, *_LOCAL)


def local_path(ref: SourceRef) -> str | None:
    """The path of a whole local file, None for anything else."""
    return ref.path if ref.is_whole_file and url_protocol(ref.path) is None else None


class SourceFile:
    """A read-only file object for PyAV. Raises VideoError `not_found`, `unreadable`, `changed` and nothing else.

    An object store is read in blocks, each tried again where a fault may pass. The first error is kept in `error`,
    since FFmpeg may take a failed read for the end of the file.
    """

    def __init__(self, ref: SourceRef, name: str) -> None:
        self._name = name
        self._position = 0
        self._start = ref.offset or 0
        self._object: ObjectFile | None = None
        self._descriptor = -1
        self.error: VideoError | None = None
        try:
            if is_remote(ref):
                store, inner = Remote.open(ref.path)
                end = store.info(inner).size_bytes
                self._object = ObjectFile(store, inner, end)
            else:
                # A named pipe that took a file's place must not make us wait for its writer.
                self._descriptor = os.open(_plain(ref.path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                status = os.fstat(self._descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise VideoError("unreadable", f"{name} is not a regular file")
                end = status.st_size
        except VideoError:
            self.close()
            raise
        except (OSError, ValueError, ImportError) as error:
            self.close()
            raise read_error(error, name) from error
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
        self._object = None

    def _read_at(self, offset: int, count: int) -> bytes:
        if count <= 0:
            return b""
        try:
            if self._object is None:
                return os.pread(self._descriptor, count, offset)
            return self._object.read_at(offset, count)
        except OSError as error:
            self.error = self.error or read_error(error, self._name)
            raise self.error from error


def read_error(error: Exception, name: str) -> VideoError:
    """The VideoError for what reading a source raised: `not_found` or `unreadable`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return VideoError("not_found", f"{name} does not exist")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    hint = None
    if isinstance(error, ObjectStoreError) and error.fault == "denied":
        hint = "check the credentials, and what they allow on the object store"
    return VideoError("unreadable", f"{name} cannot be read: {redact_text(reason)}", hint=hint)


def _plain(path: str) -> str:
    """The path of a `file://` URL."""
    protocol = url_protocol(path)
    return path if protocol is None else path[len(protocol) + 3 :]
