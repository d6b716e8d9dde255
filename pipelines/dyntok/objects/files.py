"""An object as a seekable file, read in blocks that are tried again by themselves."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from dyntok.objects.remote import Remote

BLOCK_BYTES = 4 * 2**20


class ObjectFile(io.RawIOBase):
    """Read-only. Holds the last `blocks` blocks of `block_bytes`. Raises ObjectStoreError."""

    def __init__(
        self, remote: Remote, path: str, size: int, *, block_bytes: int = BLOCK_BYTES, blocks: int = 4
    ) -> None:
        super().__init__()
        self._remote, self._path = remote, path
        self._block_bytes, self._most = block_bytes, blocks
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self.size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end of the object."""
        end = min(offset + count, self.size)
        parts = []
        while offset < end:
            number, begin = divmod(offset, self._block_bytes)
            part = self._block(number)[begin : begin + end - offset]
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
        else:
            start = number * self._block_bytes
            data = self._remote.read(self._path, start, min(self._block_bytes, self.size - start))
            self._blocks[number] = data
            if len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        return self._blocks[number]
