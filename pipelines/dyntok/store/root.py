"""Where a store lives: a local folder or an fsspec URL, behind one small interface."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from dyntok.durable import fsync_path
from dyntok.errors import StoreError
from dyntok.objects import MissingObjectError, ObjectFile, ObjectStoreError, PrivateFolder, Remote
from dyntok.objects.remote import each_at_once
from dyntok.store.explaining import explain_os_error, store_error
from dyntok.store.names import SCRATCH_FOLDER, check_path
from dyntok.urls import redact, redact_text

__all__ = ["StoreRoot", "explain_os_error", "store_error"]

_LOCAL_PREFIX = ("file://", "local://")
_LOCAL_CHUNK = 2**20
_REMOTE_CHUNK = 2**23
Stop = Callable[[], bool]


class StoreRoot:
    """A store's root. Every `path` argument is relative to it, with `/`, and is checked to stay inside.

    Local writes are durable when they return: temporary file, fsync, rename, fsync of the folder. On an object
    store a write is one upload, and faults that may pass are tried again. All methods raise StoreError, naming the
    path, where the operating system or the object store reports an error. Instances can be pickled, and then mean the
    same whatever the working directory.

    Attributes:
        url: where it is, without credentials; for people.
        scratch: name of its folder for files in the making below `.tmp/`; empty for `.tmp/` itself.
    """

    def __init__(self, url: str, base: Path | None, remote: Remote | None, prefix: str, scratch: str) -> None:
        self.url, self.scratch = redact(url), scratch
        self._full_url = url
        self._base = base
        self._remote = remote
        self._prefix = prefix
        self._private: PrivateFolder | None = None

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, create: bool = False, scratch: str = "") -> StoreRoot:
        """Root at a folder, a `file://` URL or any fsspec URL (`s3://`, `gs://`, `memory://`).

        Args:
            url: where the store is or will be.
            create: make the folder if it is missing; otherwise a missing local folder is an error.
            scratch: name for a scratch folder of its own, where several write to one local store.
        """
        text = os.fspath(url)
        for prefix in _LOCAL_PREFIX:
            text = text.removeprefix(prefix)
        if "://" not in text and "::" not in text:
            base = Path(text).absolute()
            with explain_os_error(text, "open the store"):
                if create:
                    _make_folder(base, text)
                if not base.is_dir():
                    raise StoreError(f"there is no folder {text}", hint="check the path of the store (--out of encode)")
            return cls(text, base, None, "", scratch)
        try:
            remote, inner = Remote.open(text)
        except (ImportError, ObjectStoreError) as error:
            raise StoreError(
                f"cannot open {redact(text)}: {redact_text(str(error))}",
                hint="pip install 'dyntok[s3]' or 'dyntok[gcs]'",
            ) from error
        return cls(text.rstrip("/"), None, remote, inner.rstrip("/"), scratch)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(StoreRoot.open, self.address, scratch=self.scratch), ()

    def __repr__(self) -> str:
        return f"StoreRoot({self.url!r})"

    @property
    def address(self) -> str:
        """What `open` takes in any process, whatever its working directory. May hold credentials: not for people."""
        return self._full_url if self._base is None else str(self._base)

    @property
    def is_local(self) -> bool:
        return self._base is not None

    def local_path(self, path: str) -> Path | None:
        """The file's local path, or None on an object store."""
        check_path(path)
        return None if self._base is None else self._base / path

    def where(self, path: str) -> str:
        """`path` as people write it, for messages."""
        return f"{self.url}/{path}"

    # reading ------------------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        local = self.local_path(path)
        if local is not None:
            return local.exists()
        with explain_os_error(self.where(path), "look for"):
            try:
                self._store.info(self._inner(path))
            except MissingObjectError:
                return False
            return True

    def size(self, path: str) -> int:
        """Bytes of a file."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            return local.stat().st_size if local is not None else self._store.info(self._inner(path)).size_bytes

    def open_read(self, path: str) -> BinaryIO:
        """A seekable binary file."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            if local is not None:
                return local.open("rb")
            size = self._store.info(self._inner(path)).size_bytes
            return cast(BinaryIO, ObjectFile(self._store, self._inner(path), size))

    def seekable(self, path: str) -> str | BinaryIO:
        """What Arrow takes to read a file here and there: the path where it is local, which it can map, else a file."""
        local = self.local_path(path)
        return self.open_read(path) if local is None else str(local)

    def chunks(self, path: str) -> Iterator[bytes]:
        """The whole file in pieces of a few MiB."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            if local is not None:
                with local.open("rb") as file:
                    while chunk := file.read(_LOCAL_CHUNK):
                        yield chunk
                return
            inner = self._inner(path)
            size = self._store.info(inner).size_bytes
            for start in range(0, size, _REMOTE_CHUNK):
                yield self._store.read(inner, start, min(_REMOTE_CHUNK, size - start))

    def read_bytes(self, path: str, max_bytes: int = 2**28) -> bytes:
        """The whole file, refused before reading if it is larger than `max_bytes`."""
        size = self.size(path)
        if size > max_bytes:
            raise StoreError(f"{self.where(path)} has {size} bytes, more than the {max_bytes} expected at most")
        return self.read_range(path, 0, size)

    def read_if_there(self, path: str, max_bytes: int = 2**28) -> bytes | None:
        """As `read_bytes`; None if there is no such file."""
        try:
            return self.read_bytes(path, max_bytes)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, and only those; StoreError if the file ends before."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            if local is None:
                return self._store.read(self._inner(path), start, length)
            with local.open("rb") as file:
                file.seek(start)
                data = file.read(length)
        if len(data) != length:
            raise StoreError(f"{self.where(path)} ends at byte {start + len(data)}, expected {start + length}")
        return data

    def list(self, path: str = "") -> tuple[str, ...]:
        """Every file below a folder, sorted; empty if the folder is missing."""
        return tuple(self.sizes(path))

    def sizes(self, path: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, sorted by path; links to folders are not followed."""
        if path:
            check_path(path)
        with explain_os_error(self.where(path), "list"):
            found = self._local_sizes(path) if self._base is not None else self._remote_sizes(path)
        return dict(sorted(found.items()))

    def _local_sizes(self, path: str) -> dict[str, int]:
        base = cast(Path, self._base)
        found: dict[str, int] = {}
        for folder, _, names in os.walk(base / path):
            for name in names:
                file = Path(folder, name)
                with suppress(FileNotFoundError):  # a running store renames files under us
                    found[file.relative_to(base).as_posix()] = file.stat().st_size
        return found

    def _remote_sizes(self, path: str) -> dict[str, int]:
        top = self._inner(path) if path else self._prefix
        cut = len(self._prefix) + 1 if self._prefix else 0
        return {name[cut:]: info.size_bytes for name, info in self._store.find(top).items()}

    def remote_entries(self, path: str) -> Sequence[dict[str, Any]]:
        """fsspec's `info` of everything directly in a folder of an object store; empty if the folder is missing."""
        with explain_os_error(self.where(path), "list"):
            try:
                return self._store.children(self._inner(path))
            except MissingObjectError:
                return []

    def remote_heads(self, paths: Sequence[str], length: int) -> Sequence[bytes | None]:
        """The first bytes of objects of an object store, asked for together; None where that failed."""
        with explain_os_error(self.url, "read"):
            return self._store.heads([self._inner(path) for path in paths], length)

    # writing ------------------------------------------------------------------------------------------------

    def write_atomic(self, path: str, data: bytes) -> None:
        """Write a small file so that readers see the old content or the new, never a part."""
        if self._base is None:
            with explain_os_error(self.where(path), "write"):
                self._store.put_bytes(self._inner(path), data)
            return
        temporary = self.scratch_dir() / f"{uuid.uuid4().hex}.part"
        try:
            with explain_os_error(self.where(path), "write"):
                temporary.write_bytes(data)
            self.commit_file(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def commit_file(self, local_tmp: Path, path: str, stop: Stop = lambda: False) -> None:
        """Move a finished temporary file to its place (fsync, rename, fsync of the folder), or upload it.

        `stop` is asked during an upload; if it says so, the upload is taken back and StoreError raised.
        """
        target = self.local_path(path)
        with explain_os_error(self.where(path), "write"):
            if target is None:
                self._store.put_file(local_tmp, self._inner(path), stop)
                local_tmp.unlink()
                return
            fsync_path(local_tmp)
            target.parent.mkdir(parents=True, exist_ok=True)
            local_tmp.replace(target)
            fsync_path(target.parent)

    def upload_new(self, local_tmp: Path, path: str) -> bool:
        """Upload a file to an object store unless there is one already; whether it did. See `Remote.put_new`."""
        with explain_os_error(self.where(path), "write"):
            return self._store.put_new(local_tmp, self._inner(path))

    def commit_tree(self, local_tmp: Path, path: str, stop: Stop = lambda: False) -> None:
        """Move a finished temporary folder to its place, replacing what is there, or upload its files."""
        target = self.local_path(path)
        self.remove_tree(path)
        with explain_os_error(self.where(path), "write"):
            if target is None:
                inner = self._inner(path)
                each_at_once(
                    lambda file: self._store.put_file(file, f"{inner}/{file.relative_to(local_tmp).as_posix()}", stop),
                    sorted(item for item in local_tmp.rglob("*") if item.is_file()),
                )
                shutil.rmtree(local_tmp)
                return
            for folder, _, names in os.walk(local_tmp):
                for name in names:
                    fsync_path(Path(folder, name))
                fsync_path(Path(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            local_tmp.rename(target)
            fsync_path(target.parent)

    def move(self, path: str, to: str) -> None:
        """Give a file another name; what has that name is replaced. On an object store it is copied, then deleted."""
        local, target = self.local_path(path), self.local_path(to)
        with explain_os_error(self.where(path), "move"):
            if local is None or target is None:
                self._store.copy(self._inner(path), self._inner(to))
                self._store.remove(self._inner(path))
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            local.replace(target)
            fsync_path(target.parent)
            fsync_path(local.parent)

    def remove(self, path: str) -> None:
        """Delete a file if it is there."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "remove"):
            if local is not None:
                local.unlink(missing_ok=True)
            else:
                self._store.remove(self._inner(path))

    def remove_tree(self, path: str) -> None:
        """Delete a folder and all below if it is there. Locally it leaves its name in one step."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "remove"):
            if local is None:
                self._store.remove_tree(self._inner(path))
            elif local.exists():
                grave = self.scratch_dir() / f"{uuid.uuid4().hex}.old"
                local.rename(grave)
                shutil.rmtree(grave)

    # scratch ------------------------------------------------------------------------------------------------

    def scratch_dir(self) -> Path:
        """A local folder for files in the making: below `.tmp/` inside a local store, else a private temporary one."""
        with explain_os_error(self.where(SCRATCH_FOLDER), "make"):
            if self._base is not None:
                shared = self._base / SCRATCH_FOLDER
                shared.mkdir(exist_ok=True)
                own = shared / self.scratch
                own.mkdir(exist_ok=True)
                return own
            if self._private is None:
                self._private = PrivateFolder()
            return self._private.path

    def clear_scratch(self) -> None:
        """Delete what dead writers left behind. Only for the process that holds the store's lock, or the job's."""
        with explain_os_error(self.where(SCRATCH_FOLDER), "remove"):
            if self._base is not None:
                shutil.rmtree(self._base / SCRATCH_FOLDER / self.scratch, onerror=_unless_of_others)
            elif self._private is not None:
                self._private.close()
                self._private = None

    # ----------------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Remote:
        if self._remote is None:
            raise ValueError("a local root has no object store")
        return self._remote

    def _inner(self, path: str) -> str:
        return f"{self._prefix}/{check_path(path)}"


def _unless_of_others(function: object, path: str, failure: tuple[Any, BaseException, Any]) -> None:
    """Pass over what is gone, and what may not be removed: another user's, under a name that nobody uses again."""
    passed = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTEMPTY)
    if not isinstance(failure[1], OSError) or failure[1].errno not in passed:
        raise failure[1]


def _make_folder(base: Path, shown: str) -> None:
    """Make a store's folder where it is missing. Raises StoreError where there cannot be one, OSError for the rest."""
    try:
        base.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(
            f"{shown} cannot be a store: it is, or lies below, a file that is no folder",
            hint="give --out a folder that is empty or does not exist yet",
        ) from None
    except FileNotFoundError as error:  # a file system that makes no folders, such as /proc
        raise StoreError(
            f"cannot make the folder {shown}: {error.strerror}", hint="give --out a folder elsewhere"
        ) from error
