"""Reads WebDataset shards by offset: memory-mapped where they are local, by byte ranges elsewhere."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyntok.errors import DamageError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import level_suffix
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot, explain_os_error
from dyntok.store.samples import MAX_JSON_BYTES, VideoHead, head_from, parse_meta
from dyntok.store.tar.stream import BLOCK, TarMember, parse_tar_header
from dyntok.store.tensorfile import (
    TOKEN_DTYPES,
    Array,
    BytesLike,
    TensorSpec,
    header_length,
    parse_header,
    view_tensor,
)

# One request of this size holds everything before the tokens for some eighty frames of 14 x 14 patches.
_HEAD_BYTES = 2**16


class ByteSource:
    """Ranges of one file: views of a private memory map if it is local, else one request each.

    The map is copy-on-write, so that tensors over it may be written to without an effect on the file; no memory
    is reserved for that.
    """

    def __init__(self, root: StoreRoot, path: str) -> None:
        self._root = root
        self._path = path
        self.where = root.where(path)
        self.size = root.size(path)
        self._view: memoryview | None = None
        local = root.local_path(path)
        if local is not None and self.size:
            with explain_os_error(self.where, "map"), local.open("rb") as file:
                self._view = memoryview(_private_map(file.fileno(), self.size))

    def get(self, offset: int, length: int) -> BytesLike:
        """`length` bytes from `offset`. Raises DamageError beyond the end of the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DamageError(f"{self.where} has {self.size} bytes; its records lead to byte {offset + length}")
        if self._view is not None:
            return self._view[offset : offset + length]
        return self._root.read_range(self._path, offset, length)


def _private_map(fileno: int, size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(fileno, size, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    return mmap.mmap(fileno, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


@dataclass(slots=True)
class _Tensors:
    """One safetensors member: its tensors, and the bytes before its tokens."""

    member: TarMember
    specs: dict[str, TensorSpec]
    front: BytesLike


class TarShardReader(ShardReader):
    """A video's members lie next to each other; its record says where the first begins."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord) -> None:
        super().__init__(root, info, shard, record)
        self._source = ByteSource(root, self._path)
        # Those of the video read last, so that head, groups and tokens parse its headers once.
        self._members: list[_Tensors] = []
        self._next_header = 0

    def _read_head(self, video: VideoRow) -> VideoHead:
        where = f"{self._where} ({video.id})"
        header = self._header(video.offset - BLOCK, f"{video.key}.safetensors", where)
        if (header.offset, header.size) != (video.offset, video.nbytes):
            raise DamageError(f"{where} does not begin where its record says")
        main = self._tensors(header, where)
        meta_member = self._header(header.next_header, f"{video.key}.json", where)
        if meta_member.size > MAX_JSON_BYTES:
            raise DamageError(f"{where} has {meta_member.size} bytes of JSON")
        meta = parse_meta(bytes(self._source.get(meta_member.offset, meta_member.size)), where)
        self._members, self._next_header = [main], meta_member.next_header
        grid, frames = self._info.grid, video.frames
        return head_from(
            meta,
            self._tensor(main, "similarity", "F32", (frames, grid.rows, grid.cols)),
            self._tensor(main, "frame_index", "I64", (frames,)),
            self._tensor(main, "frame_pts", "F64", (frames,)),
            where,
        )

    def _read_count(self, row: int, level: int) -> int:
        return self._member(row, level).specs["tokens"].shape[0]

    def _read_splits(self, row: int, level: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        part = self._member(row, level)
        scale = self._tensor(part, "token_scale") if self._info.dtype == "int8" else None
        return self._tensor(part, "row_splits"), scale

    def _read_group_size(self, row: int, level: int) -> npt.NDArray[np.uint8]:
        return self._tensor(self._member(row, level), "group_size")

    def _read_tokens(self, row: int, level: int, begin: int, end: int) -> Array:
        part = self._member(row, level)
        spec = part.specs["tokens"]
        row_bytes = spec.shape[1] * spec.numpy_dtype.itemsize
        piece = TensorSpec(spec.dtype, (end - begin, spec.shape[1]), 0, (end - begin) * row_bytes)
        return view_tensor(self._source.get(part.member.offset + spec.begin + begin * row_bytes, piece.end), piece)

    def _read_whole(self, row: int, level: int) -> tuple[Array, npt.NDArray[np.uint8]]:
        """Both in one request."""
        part = self._member(row, level)
        tokens = part.specs["tokens"]
        back = self._source.get(part.member.offset + tokens.begin, part.member.size - tokens.begin)
        group_size = view_tensor(back, part.specs["group_size"], -tokens.begin)
        return view_tensor(back, tokens, -tokens.begin), group_size

    def _read_markers(self, row: int, level: int) -> npt.NDArray[np.int64]:
        rows = self._rows[row].frames * self._info.grid.rows
        return self._tensor(self._member(row, level), "row_marker_index", "I64", (rows,))

    def _member(self, row: int, level: int) -> _Tensors:
        """The member of a level; further levels follow the JSON, one after the other."""
        head = self.head(row)
        while len(self._members) <= level:
            suffix = level_suffix(self._info.level_thresholds[len(self._members)])
            where = f"{self._where} ({head.id}, {suffix})"
            member = self._header(self._next_header, f"{head.key}.{suffix}.safetensors", where)
            self._members.append(self._tensors(member, where))
            self._next_header = member.next_header
        return self._members[level]

    def _header(self, offset: int, name: str, where: str) -> TarMember:
        block = bytes(self._source.get(offset, BLOCK))
        member = parse_tar_header(block, offset + BLOCK, self._source.size, where)
        if member is None or member.name != name:
            raise DamageError(f"{where}: the tar holds {member and member.name!r} where {name} belongs")
        return member

    def _tensors(self, member: TarMember, where: str) -> _Tensors:
        front = self._source.get(member.offset, min(member.size, _HEAD_BYTES))
        start = header_length(bytes(front[:8]), member.size, where)
        if start > len(front):
            front = self._source.get(member.offset, start)
        specs = parse_header(bytes(front[:start]), member.size, where)
        part = _Tensors(member, specs, front)
        self._check_level_specs(part, where)
        if specs["tokens"].begin > len(front):
            part.front = self._source.get(member.offset, specs["tokens"].begin)
        return part

    def _check_level_specs(self, part: _Tensors, where: str) -> None:
        specs, info = part.specs, self._info
        count = specs["tokens"].shape[0] if "tokens" in specs and specs["tokens"].shape else -1
        expected = {
            "tokens": (TOKEN_DTYPES[info.dtype], (count, info.token_dim)),
            "group_size": ("U8", (count,)),
        }
        if info.dtype == "int8":
            expected["token_scale"] = ("F32", (count,))
        for name, (dtype, shape) in expected.items():
            spec = specs.get(name)
            if spec is None or (spec.dtype, spec.shape) != (dtype, shape):
                raise DamageError(f"{where} has no tensor {name} of {dtype} {list(shape)}")
        splits = specs.get("row_splits")
        if splits is None or splits.dtype != "I32" or len(splits.shape) != 1:
            raise DamageError(f"{where} has no row_splits")
        if specs["tokens"].begin > specs["group_size"].begin:
            raise DamageError(f"{where} has its tensors in another order than tokens, group_size")

    def _tensor(
        self, part: _Tensors, name: str, dtype: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Array:
        spec = part.specs.get(name)
        if spec is None or (dtype and spec.dtype != dtype) or (shape is not None and spec.shape != shape):
            raise DamageError(f"{part.member.name} in {self._where} has no tensor {name} {dtype} {shape}")
        if spec.end <= len(part.front):
            return view_tensor(part.front, spec)
        data = self._source.get(part.member.offset + spec.begin, spec.end - spec.begin)
        return view_tensor(data, spec, -spec.begin)
