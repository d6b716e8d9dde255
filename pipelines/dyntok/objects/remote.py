"""One fsspec file system whose operations are tried again, bounded in time, and fail with one kind of error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from dyntok.objects import multipart
from dyntok.objects.faults import MissingObjectError, ObjectStoreError, error_of
from dyntok.objects.retries import Patience, try_again
from dyntok.urls import secrets_of, url_protocol

T = TypeVar("T")
Stop = Callable[[], bool]

_S3 = frozenset({"s3", "s3a"})
# Here an object appears whole or not at all, and its etag or checksum stands for its content. The etags of web
# servers often hold the modification time.
_OBJECT_STORES = _S3 | {"gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "r2"}
# Drivers that hand the condition on to the store. fsspec's own, for files in memory among them, look and then write.
_CONDITIONAL = _S3 | {"gs", "gcs"}
# What is no bucket: a user, or a user and a password with or without a slash in it. ARNs have colons too.
_S3_CREDENTIALS = r"(?!arn:)[^/]*[@:]"
_CONTENT_KEYS = ("md5Hash", "crc32c", "ETag", "etag")
# Three attempts of botocore's own within each of ours; s3fs's own (five around botocore's five) are turned off.
# Pages of long listings are tried again by botocore alone.
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 64,
    "retries": {"mode": "standard", "total_max_attempts": 3},
}
# A request that brings less than about 64 KiB a second is given up and tried again.
_SLOWEST_BYTES_PER_S = 64 * 1024
_SHORTEST_LIMIT_S = 60.0
FILES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """`etag`: an object store's etag or checksum, None elsewhere. A folder has no bytes."""

    size_bytes: int
    etag: str | None = None
    is_folder: bool = False


def is_object_store(protocol: str | None) -> bool:
    """Whether the protocol is that of an object store, where an upload shows as a whole or not at all."""
    return protocol in _OBJECT_STORES


def object_info(protocol: str | None, info: dict[str, Any]) -> ObjectInfo | None:
    """What an fsspec `info` dictionary says; None if it is neither a folder nor a file of known size."""
    if info.get("type") == "directory":
        return ObjectInfo(0, is_folder=True)
    if info.get("type") != "file" or not isinstance(info.get("size"), int):
        return None
    etag = None
    if protocol in _OBJECT_STORES:
        etag = next((str(info[key]).strip('"') for key in _CONTENT_KEYS if info.get(key)), None)
    return ObjectInfo(int(info["size"]), etag)


class Remote:
    """A file system of any protocol. `path` arguments are fsspec's paths, without the protocol.

    Faults that may pass are tried again (`Patience`). All methods raise ObjectStoreError (`MissingObjectError`,
    `DeniedObjectError`) and nothing else. Safe to use from several threads, and in a fork.
    """

    def __init__(
        self, fs: Any, protocol: str | None, patience: Patience | None = None, stop: Stop = lambda: False
    ) -> None:
        self._opened, self._process = fs, os.getpid()
        self._stop = stop
        self._url: str | None = None
        self._secrets: tuple[str, ...] = ()
        self.protocol = protocol
        self.patience = patience or Patience()

    @classmethod
    def open(cls, url: str, patience: Patience | None = None, stop: Stop = lambda: False) -> tuple[Remote, str]:
        """The file system of a URL, and the path within it. Once `stop` says so, nothing is tried again.

        Raises ImportError where the protocol's driver is not installed, ObjectStoreError where it is unknown.
        """
        protocol = url_protocol(url)
        if protocol in _S3 and re.match(_S3_CREDENTIALS, url.partition("://")[2]):
            raise ObjectStoreError("s3 URLs hold no credentials; put them where the AWS tools look for them")
        secrets = secrets_of(url)
        options = _s3_options(protocol) if protocol in _S3 and "::" not in url else {}
        try:
            fs, path = fsspec.core.url_to_fs(url, **options)
            if options:
                fs.retries = 1
        except ImportError:
            raise
        except Exception as error:
            raise error_of(error, secrets=secrets) from error
        remote = cls(fs, protocol, patience, stop)
        remote._url, remote._secrets = url, secrets
        return remote, path

    @property
    def _fs(self) -> Any:
        """The file system, a fork's own: connections, and the thread that serves them, stay with their process."""
        if self._process != os.getpid() and self._url is not None:
            self._opened, self._process = Remote.open(self._url)[0]._opened, os.getpid()
        return self._opened

    @property
    def is_web(self) -> bool:
        """Whether this is a web server, which may not know byte ranges."""
        return self.protocol in ("http", "https")

    # reading ------------------------------------------------------------------------------------------------

    def info(self, path: str) -> ObjectInfo:
        """Size and etag of an object, asked for anew."""

        def ask() -> ObjectInfo:
            self._forget(path)
            info = object_info(self.protocol, self._fs.info(path, **self._limit(0)))
            if info is None:
                raise ObjectStoreError("its size is not known")
            return info

        return self._try(ask)

    def read(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`; an object that ends before is an error."""
        if length <= 0:
            return b""

        def ask() -> bytes:
            data = self._range(path, start, length)
            if len(data) > length:
                raise ObjectStoreError("the server does not serve byte ranges")
            if len(data) < length:
                self._explain_short(path, start, length, len(data))
            return data

        return self._try(ask)

    def download(self, path: str, local: Path, stop: Stop = lambda: False) -> None:
        """The whole object into a file in one stream, for servers without byte ranges."""
        self._try(lambda: self._fs.get_file(path, str(local)), stop)

    def children(self, path: str) -> list[dict[str, Any]]:
        """fsspec's `info` of everything directly in a folder; nothing of it stays in a cache."""

        def ask() -> list[dict[str, Any]]:
            self._forget(path)
            return list(self._fs.ls(path, detail=True))

        try:
            return self._try(ask)
        finally:
            self._forget(path)

    def heads(self, paths: Sequence[str], length: int) -> list[bytes | None]:
        """Up to `length` bytes from the beginning of each object, asked for together; None where that failed.

        Single failures are not tried again: whoever needs the object reads it.
        """

        def ask() -> list[Any]:
            return list(self._fs.cat_ranges(list(paths), [0] * len(paths), [length] * len(paths), on_error="return"))

        found = self._try(ask) if paths else []
        return [bytes(head) if isinstance(head, bytes | bytearray) else None for head in found]

    def find(self, path: str) -> dict[str, ObjectInfo]:
        """Every file below a folder by its path; none if the folder is missing."""

        def ask() -> dict[str, Any]:
            self._fs.invalidate_cache()
            return dict(self._fs.find(path, detail=True))

        try:
            entries = self._try(ask)
        except MissingObjectError:
            return {}
        finally:
            self._fs.invalidate_cache()
        found = ((name, object_info(self.protocol, entry)) for name, entry in entries.items())
        return {name: info for name, info in found if info is not None and not info.is_folder}

    # writing ------------------------------------------------------------------------------------------------

    def put_bytes(self, path: str, data: bytes) -> None:
        """Write an object of a few MiB."""
        self._try(lambda: self._put(lambda: self._fs.pipe_file(path, data), path, len(data)))

    def put_file(self, local: Path, path: str, stop: Stop = lambda: False) -> None:
        """Upload a file. On S3 a large one goes up in parts, each tried again by itself, and shows when all are there.

        `stop` is asked between parts; then the upload is taken back and ObjectStoreError raised.
        """
        size = local.stat().st_size
        if self.protocol in _S3 and size >= 2 * multipart.PART_BYTES:
            multipart.upload(self._fs, local, path, self.patience, stop)
            self._fs.invalidate_cache()
        elif self.protocol in _S3:
            self.put_bytes(path, local.read_bytes())
        else:
            self._try(lambda: self._put(lambda: self._fs.put_file(str(local), path), path, size), stop)

    def put_new(self, local: Path, path: str) -> bool:
        """Upload a file unless there is one already. False if there is one, even if an earlier try has put it there.

        Exact where objects can be written on condition (S3, GCS); elsewhere the look and the write are two steps.
        """
        size = local.stat().st_size
        if self.protocol not in _CONDITIONAL:
            with suppress(MissingObjectError):
                self.info(path)
                return False
            self.put_file(local, path)
            return True

        def put() -> bool:
            try:
                self._put(lambda: self._fs.put_file(str(local), path, mode="create"), path, size)
            except FileExistsError:
                return False
            except OSError:
                # S3 refuses two writes that meet, and an answer may be lost of a write that was done.
                self._forget(path)
                with suppress(FileNotFoundError):
                    self._fs.info(path)
                    return False
                raise
            return True

        return self._try(put)

    def copy(self, path: str, target: str) -> None:
        """Copy an object within the store; its bytes stay there where the protocol allows it."""
        size = self.info(path).size_bytes
        self._try(lambda: self._put(lambda: self._fs.cp_file(path, target), target, size))

    def remove(self, path: str) -> None:
        """Delete an object if it is there."""
        with suppress(MissingObjectError):
            self._try(lambda: self._fs.rm_file(path))
        self._fs.invalidate_cache()

    def remove_tree(self, path: str) -> None:
        """Delete every file below a folder."""
        each_at_once(self.remove, self.find(path))

    # ----------------------------------------------------------------------------------------------------------

    def _try(self, call: Callable[[], T], stop: Stop = lambda: False) -> T:
        return try_again(call, self.patience, give_up=lambda: stop() or self._stop(), secrets=self._secrets)

    def _range(self, path: str, start: int, length: int) -> bytes:
        if not self.is_web:
            return bytes(self._fs.cat_file(path, start=start, end=start + length, **self._limit(length)))
        # A web server may ignore the range and send all it has; fsspec's file notices that before it reads on.
        with self._fs.open(path, "rb", size=start + length, cache_type="none") as file:
            file.seek(start)
            return bytes(file.read(length))

    def _put(self, put: Callable[[], object], path: str, size: int) -> None:
        """Write, and where half an object could be left behind, look at its size."""
        put()
        self._fs.invalidate_cache()
        if is_object_store(self.protocol):
            return
        info = object_info(self.protocol, self._fs.info(path))
        if info is not None and info.size_bytes != size:
            raise ObjectStoreError(f"{info.size_bytes} bytes arrived, {size} were sent", "busy")

    def _explain_short(self, path: str, start: int, length: int, got: int) -> None:
        """Raise for an answer that is too short: for good if the object is, else to be tried again."""
        self._forget(path)
        info = object_info(self.protocol, self._fs.info(path))
        end = start + length
        if info is not None and info.size_bytes < end:
            raise ObjectStoreError(f"it ends at byte {max(info.size_bytes, start + got)}, expected {end}")
        raise ObjectStoreError(f"{got} bytes came where {length} were asked for", "busy")

    def _forget(self, path: str) -> None:
        """Listings that the driver remembers may be old."""
        self._fs.invalidate_cache(path)
        parent, slash, _ = path.rstrip("/").rpartition("/")
        if slash:
            self._fs.invalidate_cache(parent)

    def _limit(self, length: int) -> dict[str, float]:
        """A limit of time for one request; only asynchronous drivers have one."""
        if not self._fs.async_impl:
            return {}
        return {"timeout": _SHORTEST_LIMIT_S + length / _SLOWEST_BYTES_PER_S}


def each_at_once(call: Callable[[T], object], items: Iterable[T]) -> None:
    """`call(item)` for every item, a few at a time. Raises the first error, after all that began have ended."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


def _s3_options(protocol: str | None) -> dict[str, Any]:
    """Time limits and tries of the S3 client; what the user has configured for fsspec goes before."""
    configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    return {"config_kwargs": {**_S3_CONFIG, **configured}}
