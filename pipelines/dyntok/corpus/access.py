"""Size, kind, etag and byte ranges of local paths and fsspec URLs. Knows nothing of videos."""

from __future__ import annotations

import functools
import os
import re
import stat as stat_module
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import fsspec

from dyntok.errors import InputError

Kind = Literal["file", "folder", "special", "missing"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
_HTTP = frozenset({"http", "https"})
# Here the part before the @ names a container; elsewhere it is a user, perhaps with a password.
_CONTAINER_BEFORE_AT = frozenset({"abfs", "abfss", "wasb", "wasbs"})
# Stores whose etag or checksum stands for the content. The etags of web servers often hold the modification
# time, so those files are read instead.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "r2"})
_CONTENT_KEYS = ("md5Hash", "crc32c", "ETag", "etag")
# What drivers raise beside OSError and ValueError; looked up only where the driver is in use.
_DRIVER_ERRORS = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
}


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size in bytes, and an object store's etag (None elsewhere)."""

    size_bytes: int
    etag: str | None = None


class RangeReader(Protocol):
    """Reads byte ranges of one file."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, or fewer at the end of the file. Raises one of `read_errors()`."""


def url_protocol(path: str) -> str | None:
    """The protocol of a URL in lower case, None for a local path."""
    match = _URL.match(path)
    return match[1].lower() if match else None


def is_http(path: str) -> bool:
    """Whether a path is a web address: those can be read, and not listed."""
    return url_protocol(path) in _HTTP


def read_errors() -> tuple[type[Exception], ...]:
    """The exceptions by which a file or its store says that it cannot be read."""
    errors: list[type[Exception]] = [OSError, ValueError]
    for module, names in _DRIVER_ERRORS.items():
        if module in sys.modules:
            errors += [getattr(sys.modules[module], name) for name in names]
    return tuple(errors)


def redact(path: str) -> str:
    """A path that may be shown and stored: a URL without user, password, query and (http) fragment."""
    protocol = url_protocol(path)
    if protocol is None:
        return path
    scheme, _, rest = path.partition("://")
    host, slash, tail = rest.partition("/")
    if protocol not in _CONTAINER_BEFORE_AT or ":" in host.partition("@")[0]:
        host = host.rpartition("@")[2]
    host = host.partition("?")[0]
    if not re.fullmatch(r"[^:]*(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", host):
        host, tail = "***", tail.rpartition("@")[2]  # a password with a slash in it
    tail = tail.partition("?")[0]
    if protocol in _HTTP:
        tail = tail.partition("#")[0]
    return f"{scheme}://{host}{slash}{tail}"


@functools.lru_cache(maxsize=64)
def _check_protocol(protocol: str) -> None:
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(
            f"unknown protocol {protocol}://", hint="give a local path or an fsspec URL"
        ) from error
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


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path within it."""
    try:
        fs, inner = fsspec.core.url_to_fs(url)
    except (TypeError, OSError, ValueError) as error:
        raise InputError(
            f"cannot open {redact(url)}: {type(error).__name__}", hint="check the address and the credentials"
        ) from error
    return fs, inner


def stat_of_info(protocol: str | None, info: dict[str, Any]) -> FileStat | None:
    """What an fsspec `info` dictionary says; None if it is no file of known size."""
    if info.get("type") != "file" or not isinstance(info.get("size"), int):
        return None
    etag = None
    if protocol in _OBJECT_STORES:
        etag = next((str(info[key]).strip('"') for key in _CONTENT_KEYS if info.get(key)), None)
    return FileStat(int(info["size"]), etag)


def file_stat(path: str) -> FileStat | None:
    """Size and etag of a regular file; None if there is none, or it cannot be looked at."""
    protocol = url_protocol(path)
    try:
        if protocol is None:
            result = os.stat(path)  # noqa: PTH116
            return FileStat(result.st_size) if stat_module.S_ISREG(result.st_mode) else None
        fs, inner = filesystem(path)
        return stat_of_info(protocol, fs.info(inner))
    except read_errors():
        return None


def kind(path: str) -> Kind:
    """What a path names. Raises `InputError` if that cannot be found out (permissions, network)."""
    try:
        if url_protocol(path) is None:
            mode = os.stat(path).st_mode  # noqa: PTH116
            if stat_module.S_ISDIR(mode):
                return "folder"
            return "file" if stat_module.S_ISREG(mode) else "special"
        fs, inner = filesystem(path)
        return "folder" if fs.info(inner)["type"] == "directory" else "file"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except read_errors() as error:
        raise InputError(
            f"cannot look at {redact(path)}: {describe(error)}",
            hint="check permissions, credentials and network",
        ) from error


def describe(error: BaseException) -> str:
    """A short text of an error, without the path: driver messages may quote a URL and its secrets."""
    if isinstance(error, OSError) and error.strerror and error.errno:
        return error.strerror
    return type(error).__name__


class _LocalReader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(self._descriptor, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _RemoteReader:
    def __init__(self, fs: Any, inner: str) -> None:
        self._fs = fs
        self._inner = inner

    def read(self, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        return bytes(self._fs.cat_file(self._inner, start=offset, end=offset + length)[:length])


@contextmanager
def open_ranges(path: str) -> Iterator[RangeReader]:
    """Byte ranges of a regular file or an object. Raises one of `read_errors()`."""
    if url_protocol(path) is not None:
        yield _RemoteReader(*filesystem(path))
        return
    # A named pipe that took a file's place must not make us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"not a regular file: {path}")
        yield _LocalReader(descriptor)
    finally:
        os.close(descriptor)


def open_binary(path: str) -> Any:
    """A readable, seekable binary file object, local or remote. Raises one of `read_errors()`."""
    if url_protocol(path) is None:
        return Path(path).open("rb")
    fs, inner = filesystem(path)
    return fs.open(inner, "rb")
