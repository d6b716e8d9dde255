"""Where a store lives: a local folder or an fsspec URL, behind one small interface."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from dyntok.errors import StoreError
from dyntok.store.names import SCRATCH_FOLDER, check_path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCAL_PREFIX = ("file://", "local://")


class StoreRoot:
    """A store's root. Every `path` argument is relative to it, with `/`, and is checked to stay inside.

    Local writes are durable when they return: temporary file, fsync, rename, fsync of the folder. On an object
    store a write is one put. All methods raise StoreError, naming the path, where the operating system or the
    object store reports an error. Instances can be pickled.
    """

    def __init__(self, url: str, base: Path | None, fs: Any, prefix: str) -> None:
        self.url = url
        self._base = base
        self._fs = fs
        self._prefix = prefix
        self._scratch: Path | None = None

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, create: bool = False) -> StoreRoot:
        """Root at a folder, a `file://` URL or any fsspec URL (`s3://`, `gs://`, `memory://`).

        Args:
            url: where the store is or will be.
            create: make the folder if it is missing; otherwise a missing local folder is an error.
        """
        text = os.fspath(url)
        for prefix in _LOCAL_PREFIX:
            text = text.removeprefix(prefix)
        if "://" not in text and "::" not in text:
            base = Path(text).absolute()
            with explain_os_error(text, "open the store"):
                if create:
                    base.mkdir(parents=True, exist_ok=True)
                if not base.is_dir():
                    raise StoreError(
                        f"there is no folder {text}", hint="check the path of the store (--out of encode)"
                    )
            return cls(text, base, None, "")
        try:
            fs, prefix = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(
                f"cannot open {text}: {error}", hint="pip install 'dyntok[s3]' or 'dyntok[gcs]'"
            ) from error
        return cls(text.rstrip("/"), None, fs, prefix.rstrip("/"))

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreRoot.open, (self.url,)

    def __repr__(self) -> str:
        return f"StoreRoot({self.url!r})"

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
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._remote(path)))

    def size(self, path: str) -> int:
        """Bytes of a file."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            return local.stat().st_size if local is not None else int(self._fs.size(self._remote(path)))

    def open_read(self, path: str) -> BinaryIO:
        """A seekable binary file."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            return (
                local.open("rb") if local is not None else cast(BinaryIO, self._fs.open(self._remote(path)))
            )

    def read_bytes(self, path: str, max_bytes: int = 2**28) -> bytes:
        """The whole file, refused before reading if it is larger than `max_bytes`."""
        size = self.size(path)
        if size > max_bytes:
            raise StoreError(
                f"{self.where(path)} has {size} bytes, more than the {max_bytes} expected at most"
            )
        return self.read_range(path, 0, size)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, and only those; StoreError if the file ends before."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "read"):
            if local is not None:
                with local.open("rb") as file:
                    file.seek(start)
                    data = file.read(length)
            else:
                data = (
                    self._fs.cat_file(self._remote(path), start=start, end=start + length) if length else b""
                )
        if len(data) != length:
            raise StoreError(
                f"{self.where(path)} ends at byte {start + len(data)}, expected {start + length}"
            )
        return bytes(data)

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
        self._fs.invalidate_cache()
        top = self._remote(path) if path else self._prefix
        try:
            entries = self._fs.find(top, detail=True)
        except FileNotFoundError:
            return {}
        cut = len(self._prefix) + 1 if self._prefix else 0
        return {
            name[cut:]: int(entry["size"] or 0) for name, entry in entries.items() if entry["type"] == "file"
        }

    # writing ------------------------------------------------------------------------------------------------

    def write_atomic(self, path: str, data: bytes) -> None:
        """Write a small file so that readers see the old content or the new, never a part."""
        if self._base is None:
            with explain_os_error(self.where(path), "write"):
                self._fs.pipe_file(self._remote(check_path(path)), data)
            return
        temporary = self.scratch_dir() / f"{uuid.uuid4().hex}.part"
        try:
            with explain_os_error(self.where(path), "write"):
                temporary.write_bytes(data)
            self.commit_file(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def commit_file(self, local_tmp: Path, path: str) -> None:
        """Move a finished temporary file to its place (fsync, rename, fsync of the folder), or upload it."""
        target = self.local_path(path)
        with explain_os_error(self.where(path), "write"):
            if target is None:
                self._fs.put_file(str(local_tmp), self._remote(path))
                local_tmp.unlink()
                return
            _fsync(local_tmp)
            target.parent.mkdir(parents=True, exist_ok=True)
            local_tmp.replace(target)
            _fsync(target.parent)

    def commit_tree(self, local_tmp: Path, path: str) -> None:
        """Move a finished temporary folder to its place, replacing what is there, or upload its files."""
        target = self.local_path(path)
        self.remove_tree(path)
        with explain_os_error(self.where(path), "write"):
            if target is None:
                for file in sorted(item for item in local_tmp.rglob("*") if item.is_file()):
                    self._fs.put_file(
                        str(file), self._remote(f"{path}/{file.relative_to(local_tmp).as_posix()}")
                    )
                shutil.rmtree(local_tmp)
                return
            for folder, _, names in os.walk(local_tmp):
                for name in names:
                    _fsync(Path(folder, name))
                _fsync(Path(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            local_tmp.rename(target)
            _fsync(target.parent)

    def remove(self, path: str) -> None:
        """Delete a file if it is there."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "remove"):
            if local is not None:
                local.unlink(missing_ok=True)
                return
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._remote(path))

    def remove_tree(self, path: str) -> None:
        """Delete a folder and all below if it is there. Locally it leaves its name in one step."""
        local = self.local_path(path)
        with explain_os_error(self.where(path), "remove"):
            if local is None:
                with suppress(FileNotFoundError):
                    self._fs.rm(self._remote(path), recursive=True)
            elif local.exists():
                grave = self.scratch_dir() / f"{uuid.uuid4().hex}.old"
                local.rename(grave)
                shutil.rmtree(grave)

    # scratch ------------------------------------------------------------------------------------------------

    def scratch_dir(self) -> Path:
        """A local folder for files in the making: `.tmp/` inside a local store, else a temporary folder."""
        with explain_os_error(self.where(SCRATCH_FOLDER), "make"):
            if self._base is not None:
                scratch = self._base / SCRATCH_FOLDER
                scratch.mkdir(exist_ok=True)
                return scratch
            if self._scratch is None:
                self._scratch = Path(tempfile.mkdtemp(prefix="dyntok-"))
                weakref.finalize(self, shutil.rmtree, str(self._scratch), ignore_errors=True)
            return self._scratch

    def clear_scratch(self) -> None:
        """Delete what dead writers left behind. Only for the one process that holds the store's lock."""
        with explain_os_error(self.where(SCRATCH_FOLDER), "remove"):
            folder = self._scratch if self._base is None else self._base / SCRATCH_FOLDER
            if folder is not None and folder.is_dir():
                shutil.rmtree(folder)
                if self._base is None:
                    self._scratch = None

    def _remote(self, path: str) -> str:
        return f"{self._prefix}/{check_path(path)}"

    def zarr_store(self, path: str) -> Any:
        """A read-only zarr store for the group at `path`."""
        from zarr.storage import FsspecStore, LocalStore

        local = self.local_path(path)
        if local is not None:
            return LocalStore(local, read_only=True)
        return FsspecStore(_asynchronous(self._fs), path=self._remote(path), read_only=True)


@contextmanager
def explain_os_error(where: str, action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        hint = None
        if error.errno in _FULL:
            hint = "free some space, then run the same command again: finished shards are kept"
        elif isinstance(error, PermissionError):
            hint = "check the permissions of the store"
        raise StoreError(f"cannot {action} {where}: {reason}", hint=hint) from error


def _asynchronous(fs: Any) -> Any:
    """`fs` as zarr wants it. Async file systems are made anew, as theirs belong to fsspec's own loop."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    if not fs.async_impl:
        return AsyncFileSystemWrapper(fs, asynchronous=True)
    return type(fs)(*fs.storage_args, **{**fs.storage_options, "asynchronous": True})


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
