"""Tar files with fixed bytes: written in one pass with flat memory, read by offset and without trust."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from typing import Any

import xxhash

from dyntok.durable import begin_write_out
from dyntok.errors import DamageError
from dyntok.store.hashing import BesideSha256

BLOCK = 512
_FLUSH_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar: its name and where its content lies (bytes)."""

    name: str
    offset: int
    size: int

    @property
    def next_header(self) -> int:
        """Where the header of the next member begins."""
        return self.offset + padded(self.size)


def padded(size: int) -> int:
    """`size` rounded up to whole tar blocks."""
    return size + -size % BLOCK


def tar_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member: GNU format, mode 0644, no owner, time 0; sizes from 8 GiB in base 256."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    if len(header) != BLOCK:
        raise ValueError(f"the member name {name!r} is too long for a plain tar header")
    return header


def parse_tar_header(block: bytes, offset: int, file_bytes: int, where: str) -> TarMember | None:
    """Member whose header `block` stands at `offset - 512`, None at the end of the archive.

    Raises DamageError for links, devices, folders, extended headers, wrong checksums and sizes beyond the file.
    """
    if block == bytes(BLOCK):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise DamageError(f"{where} has no valid tar header at byte {offset - BLOCK}: {error}") from error
    if info.type != tarfile.REGTYPE or info.linkname:
        raise DamageError(f"{where} holds {info.name!r}, which is no plain file; shards hold nothing else")
    if not 0 <= info.size <= file_bytes - offset:
        raise DamageError(f"{info.name!r} in {where} claims {info.size} bytes, more than the file has")
    return TarMember(info.name, offset, info.size)


class TarStream:
    """Appends members to a file and digests it on the way. Sizes are known before content comes.

    A member that fails half-way is undone with `mark` and `rewind`. The file is unbuffered, so that a full disk
    leaves no bytes behind that would have to be written before anything can be undone. Chunks are hashed in another
    thread: one must not change before the next was taken. The kernel is told to write them out on the way, so that
    little is left to wait for in the end.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._sha = BesideSha256()
        self._stretch = xxhash.xxh3_128()
        self._position = 0
        self._flushed = 0

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._position

    @property
    def sha256(self) -> str:
        """Digest (hex) of the bytes written so far."""
        return self._sha.hexdigest()

    def begin_stretch(self) -> None:
        """Begin a checksum of what is written from here on."""
        self._stretch.reset()

    @property
    def stretch_checksum(self) -> str:
        """XXH3-128 (hex) of the bytes written since `begin_stretch`, headers and padding included."""
        return self._stretch.hexdigest()

    def add(self, name: str, size: int, chunks: Iterable[bytes | memoryview]) -> TarMember:
        """Write one member whose chunks add up to `size` bytes. Raises ValueError if they do not."""
        self._write(tar_header(name, size))
        member = TarMember(name, self._position, size)
        for chunk in chunks:
            self._write(chunk)
            if self._position > member.offset + size:
                break
        if self._position != member.offset + size:
            raise ValueError(f"{name} has other than the {size} bytes that were announced")
        self._write(bytes(-size % BLOCK))
        return member

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))
        self._sha.close()

    def close(self) -> None:
        """End the hashing of an archive that is given up."""
        self._sha.close()

    def mark(self) -> tuple[int, Any]:
        """The present end, for `rewind`."""
        return self._position, self._sha.state()

    def rewind(self, mark: tuple[int, Any]) -> None:
        """Forget everything written after `mark`."""
        self._position, state = mark
        self._sha.restore(state)
        self._flushed = min(self._flushed, self._position)
        self._file.seek(self._position)
        self._file.truncate()

    def _write(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._stretch.update(data)
        self._position += len(data)
        if self._position - self._flushed >= _FLUSH_BYTES:
            begin_write_out(self._file.fileno(), self._flushed, self._position - self._flushed)
            self._flushed = self._position
