"""`faulty://`: an fsspec file system in memory that fails on request, as network and servers do."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

OPERATIONS = ("info", "ls", "find", "cat_file", "pipe_file", "put_file", "get_file", "rm_file", "cp_file")


def throttled() -> Exception:
    """As s3fs reports SlowDown."""
    return OSError(errno.EBUSY, "Please reduce your request rate.")


def reset() -> Exception:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def denied() -> Exception:
    return PermissionError("Access Denied")


@dataclass
class Fault:
    """What happens to calls of `operation` on a path that matches: from the `skip`-th on, `times` times (-1: always).

    `error` is raised before anything is done. Without it, reads give half of what was asked for, and writes leave
    half an object behind and raise `ConnectionResetError`.
    """

    operation: str
    path: str = ""
    error: Callable[[], Exception] | None = None
    skip: int = 0
    times: int = 1
    seen: int = 0
    done: int = 0

    def strikes(self, operation: str, path: str) -> bool:
        if operation not in self.operation.split("|") or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen <= self.skip or self.done == self.times:
            return False
        self.done += 1
        return True


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Holds its own files; `faults` and `calls` are those of all instances."""

    protocol = ("faulty",)
    cachable = True
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    faults: list[Fault] = []  # noqa: RUF012
    calls: list[tuple[str, str]] = []  # noqa: RUF012
    lock = threading.RLock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("faulty://", "memory://", 1))
        return stripped

    def _strike(self, operation: str, path: str) -> Fault | None:
        with self.lock:
            self.calls.append((operation, path))
            fault = next((f for f in self.faults if f.strikes(operation, path)), None)
        if fault is not None and fault.error is not None:
            raise fault.error()
        return fault

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        self._strike("info", path)
        info: dict[str, Any] = super().info(path, **more)
        return info

    def ls(self, path: str, detail: bool = True, **more: Any) -> list[Any]:
        self._strike("ls", path)
        found: list[Any] = super().ls(path, detail, **more)
        return found

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **more: Any) -> Any:
        self._strike("find", path)
        return super().find(path, maxdepth, withdirs, **more)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        fault = self._strike("cat_file", path)
        data: bytes = super().cat_file(path, start, end, **more)
        return data[: len(data) // 2] if fault else data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        fault = self._strike("pipe_file", path)
        super().pipe_file(path, value[: len(value) // 2] if fault else value, mode=mode, **more)
        if fault:
            raise reset()

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        fault = self._strike("put_file", rpath)
        with open(lpath, "rb") as file:
            data = file.read()
        super().pipe_file(rpath, data[: len(data) // 2] if fault else data)
        if fault:
            raise reset()

    def rm_file(self, path: str) -> None:
        self._strike("rm_file", path)
        super()._rm(path)

    def cp_file(self, path1: str, path2: str, **more: Any) -> None:
        self._strike("cp_file", path1)
        super().cp_file(path1, path2, **more)


@contextmanager
def faulty_store() -> Iterator[type[FaultyFileSystem]]:
    """`faulty://` with no files and no faults."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    try:
        yield FaultyFileSystem
    finally:
        for kept in (FaultyFileSystem.store, FaultyFileSystem.faults, FaultyFileSystem.calls):
            kept.clear()
        FaultyFileSystem.clear_instance_cache()
