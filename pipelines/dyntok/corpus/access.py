"""Size, kind, etag and byte ranges of local paths and fsspec URLs. Knows nothing of videos."""

from __future__ import annotations

import functools
import io
import os
import stat as stat_module
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, cast

import fsspec

from dyntok.errors import InputError
from dyntok.objects import ObjectFile, ObjectInfo, ObjectStoreError, Remote, is_object_store
from dyntok.urls import is_http, redact, redact_text, url_protocol

__all__ = ["is_http", "redact", "url_protocol"]

Kind = Literal["file", "folder", "special", "missing"]

# What reading a file, local or not, may raise.
READ_ERRORS = (OSError, ValueError)
_READ_AHEAD = 2**16


class FileStat(NamedTuple):
    """Size in bytes, and an object store's etag (None elsewhere)."""

    size_bytes: int
    etag: str | None = None


class RangeReader(Protocol):
    """Reads byte ranges of one file."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, or fewer at the end of the file. Raises one of `READ_ERRORS`."""


@functools.lru_cache(maxsize=64)
def _check_protocol(protocol: str) -> None:
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(f"unknown protocol {protocol}://", hint="give a local path or an fsspec URL") from error
    except ImportError as error:
        raise InputError(
            f"{protocol}:// needs a driver: {error}", hint="pip install 'dyntok[s3]' or 'dyntok[gcs]'"
        ) from error


def canonical(path: str) -> str:
    """The path that is opened, whatever the working directory: URLs as they are, local paths absolute.

    Raises `InputError` for protocols without a driver and for chained URLs (`zip://a::s3://b`).
    """
    protocol = url_protocol(path)
    if protocol is None:
        return os.path.abspath(path)  # noqa: PTH100  (Path would drop a meaningful trailing slash or `./`)
    if "::" in path:
        raise InputError(f"chained URLs are not read: {redact(path)}", hint="unpack the archive first")
    _check_protocol(protocol)
    if protocol in ("file", "local"):
        return os.path.abspath(str(fsspec.core.url_to_fs(path)[1]))  # noqa: PTH100
    return path


def remote(url: str) -> tuple[Remote, str]:
    """The file system of a URL, and the path within it. Raises `InputError`."""
    try:
        return Remote.open(url)
    except (ImportError, ObjectStoreError) as error:
        raise InputError(
            f"cannot open {redact(url)}: {describe(error)}", hint="check the address and the credentials"
        ) from error


def stat_of_info(info: ObjectInfo | None) -> FileStat | None:
    """The stat of an object; None if it is no file of known size."""
    return FileStat(info.size_bytes, info.etag) if info is not None and not info.is_folder else None


def file_stat(path: str) -> FileStat | None:
    """Size and etag of a regular file; None if there is none, or it may not be looked at.

    Raises `InputError` where an object store does not answer: what it holds must not be taken for missing.
    """
    try:
        if url_protocol(path) is None:
            result = os.stat(path)  # noqa: PTH116
            return FileStat(result.st_size) if stat_module.S_ISREG(result.st_mode) else None
        store, inner = remote(path)
        return stat_of_info(store.info(inner))
    except ObjectStoreError as error:
        refuse_silence(path, error)
        return None
    except READ_ERRORS:
        return None


def refuse_silence(path: str, error: BaseException) -> None:
    """Raise `InputError` if `error` says that an object store did not answer, after all tries.

    A web server that is gone is its videos' misfortune; an object store holds the whole corpus.
    """
    silent = isinstance(error, ObjectStoreError) and error.fault == "busy"
    if silent and is_object_store(url_protocol(path)):
        raise InputError(
            f"cannot look at {redact(path)}: {describe(error)}",
            hint="run the same command again when the object store answers",
        ) from error


def kind(path: str) -> Kind:
    """What a path names. Raises `InputError` if that cannot be found out (permissions, network)."""
    try:
        if url_protocol(path) is None:
            mode = os.stat(path).st_mode  # noqa: PTH116
            if stat_module.S_ISDIR(mode):
                return "folder"
            return "file" if stat_module.S_ISREG(mode) else "special"
        store, inner = remote(path)
        return "folder" if store.info(inner).is_folder else "file"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except READ_ERRORS as error:
        raise InputError(
            f"cannot look at {redact(path)}: {describe(error)}",
            hint="check permissions, credentials and network",
        ) from error


def describe(error: BaseException) -> str:
    """A short text of an error, without the path: driver messages may quote a URL and its secrets."""
    if isinstance(error, OSError) and error.strerror and error.errno:
        return redact_text(error.strerror)
    return type(error).__name__


class _LocalReader:
    """A class rather than a generator, and little in between: every video of a corpus is opened by it."""

    def __init__(self, path: str) -> None:
        # A named pipe that took a file's place must not make us wait for its writer.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat_module.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(f"not a regular file: {path}")

    def __enter__(self) -> _LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:  # a signal, or a file system that gives less at a time
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


class _RemoteReader:
    def __init__(self, store: Remote, inner: str) -> None:
        self._store = store
        self._inner = inner
        self._size: int | None = None

    def read(self, offset: int, length: int) -> bytes:
        if self._size is None:
            self._size = self._store.info(self._inner).size_bytes
        return self._store.read(self._inner, offset, min(length, self._size - offset))


def open_ranges(path: str) -> AbstractContextManager[RangeReader]:
    """Byte ranges of a regular file or an object. Raises one of `READ_ERRORS`."""
    return _LocalReader(path) if url_protocol(path) is None else nullcontext(_RemoteReader(*remote(path)))


def open_binary(path: str) -> BinaryIO:
    """A readable, seekable binary file object, local or remote. Raises one of `READ_ERRORS`."""
    if url_protocol(path) is None:
        return Path(path).open("rb")
    store, inner = remote(path)
    file: Any = ObjectFile(store, inner, store.info(inner).size_bytes)
    return cast(BinaryIO, io.BufferedReader(file, _READ_AHEAD))
