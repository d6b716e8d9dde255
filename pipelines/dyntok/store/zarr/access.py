"""A shard's Zarr group on an object store, as zarr reads it: by byte ranges, with the store's own tries and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from dyntok.store.root import StoreRoot


def group_store(root: StoreRoot, path: str) -> Store:
    """A read-only zarr store for the group at `path`."""
    local = root.local_path(path)
    return RootStore(root, path) if local is None else LocalStore(local, read_only=True)


class RootStore(Store):
    """Read-only; what files there are, and how large, is asked once.

    Raises StoreError where zarr's own store would make a missing chunk, and so zeros, of an error.
    """

    def __init__(self, root: StoreRoot, group: str) -> None:
        super().__init__(read_only=True)
        self._root, self._group = root, group
        self._sizes: dict[str, int] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RootStore):
            return False
        return (self._root.url, self._group) == (other._root.url, other._group)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        data = await asyncio.to_thread(self._get, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return key in await asyncio.to_thread(self._found)

    def _get(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        size = self._found().get(key)
        if size is None:
            return None
        start, end = 0, size
        if isinstance(byte_range, RangeByteRequest):
            start, end = byte_range.start, min(byte_range.end, size)
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, size - byte_range.suffix)
        return self._root.read_range(f"{self._group}/{key}", start, max(0, end - start))

    def _found(self) -> dict[str, int]:
        if self._sizes is None:
            cut = len(self._group) + 1
            self._sizes = {path[cut:]: size for path, size in self._root.sizes(self._group).items()}
        return self._sizes

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return True

    async def set(self, key: str, value: Any) -> None:
        raise NotImplementedError("the group is read-only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("the group is read-only")

    def list(self) -> AsyncIterator[str]:
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._found):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        top = f"{prefix.rstrip('/')}/" if prefix else ""
        names = {
            key[len(top) :].split("/", 1)[0] for key in await asyncio.to_thread(self._found) if key.startswith(top)
        }
        for name in sorted(names):
            yield name
