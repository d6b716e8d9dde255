"""Reads WebDataset shards by offset: memory-mapped where they are local, by byte ranges elsewhere."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from dyntok.errors import DamageError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import level_suffix, shard_data_path
from dyntok.store.reader import (
    FrameChoice,
    check_explicit,
    check_files,
    check_head,
    check_level,
    check_row,
    frame_edges,
    frame_positions,
    level_of_frames,
    take_frames,
)
from dyntok.store.root import StoreRoot, explain_os_error
from dyntok.store.samples import (
    MAX_JSON_BYTES,
    LevelGroups,
    StoredLevel,
    StoredVideo,
    VideoHead,
    head_from,
    parse_meta,
)
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
_META_BYTES = 2**12


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
            raise DamageError(
                f"{self.where} has {self.size} bytes; its records lead to byte {offset + length}"
            )
        if self._view is not None:
            return self._view[offset : offset + length]
        return self._root.read_range(self._path, offset, length)

    def at_most(self, offset: int, length: int) -> BytesLike:
        """As `get`, cut at the end of the file."""
        return self.get(offset, max(0, min(length, self.size - offset)))


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


@dataclass(slots=True)
class _Opened:
    """The parts of the video read last, so that head, groups and tokens parse its headers once."""

    row: int
    head: VideoHead
    next_header: int
    levels: list[_Tensors] = field(default_factory=list)


class TarShardReader:
    """See `ShardReader`."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord) -> None:
        check_files(root, info, record)
        self._info = info
        self._rows = record.done
        self._source = ByteSource(root, shard_data_path(shard, "webdataset"))
        self._opened: _Opened | None = None

    @property
    def rows(self) -> tuple[VideoRow, ...]:
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def head(self, row: int, frames: FrameChoice | None = None) -> VideoHead:
        head = self._open(row).head
        if frames is None:
            return head
        return take_frames(head, frame_positions(frames, head.frame_count, head.id))

    def groups(self, row: int, level: int = 0) -> LevelGroups:
        opened = self._open(row)
        part = self._part(opened, level)
        groups = self._front_groups(part, level)
        group_size = self._tensor(part, "group_size")
        return LevelGroups(groups.threshold, group_size, groups.row_splits, groups.token_scale)

    def level(self, row: int, level: int = 0, frames: FrameChoice | None = None) -> StoredLevel:
        opened = self._open(row)
        part = self._part(opened, level)
        groups = self._front_groups(part, level)
        tokens = part.specs["tokens"]
        if frames is not None:
            positions = frame_positions(frames, opened.head.frame_count, opened.head.id)
            fetch = partial(self._tokens, part)
            return level_of_frames(opened.head, groups, tokens.shape[0], positions, fetch)
        frame_edges(groups.row_splits, opened.head, tokens.shape[0])
        back = self._source.get(part.member.offset + tokens.begin, part.member.size - tokens.begin)
        return StoredLevel(
            groups.threshold,
            view_tensor(back, tokens, -tokens.begin),
            view_tensor(back, part.specs["group_size"], -tokens.begin),
            groups.row_splits,
            groups.token_scale,
        )

    def read(self, row: int, frames: FrameChoice | None = None) -> StoredVideo:
        head = self.head(row, frames)
        return StoredVideo(
            head, tuple(self.level(row, number, frames) for number in range(len(head.thresholds)))
        )

    def row_marker_index(self, row: int, level: int = 0) -> npt.NDArray[np.int64]:
        check_explicit(self._info)
        opened = self._open(row)
        rows = opened.head.frame_count * self._info.grid.rows
        return self._tensor(self._part(opened, level), "row_marker_index", "I64", (rows,))

    def token_chunks(self, row: int, level: int = 0, chunk_rows: int = 2048) -> Iterator[Array]:
        part = self._part(self._open(row), level)
        count = part.specs["tokens"].shape[0]
        for begin in range(0, count, chunk_rows):
            yield self._tokens(part, begin, min(begin + chunk_rows, count))

    # parts --------------------------------------------------------------------------------------------------

    def _open(self, row: int) -> _Opened:
        if self._opened is not None and self._opened.row == row:
            return self._opened
        video = check_row(self._rows, row)
        where = f"{self._source.where} ({video.id})"
        header = self._header(video.offset - BLOCK, f"{video.key}.safetensors", where)
        if (header.offset, header.size) != (video.offset, video.nbytes):
            raise DamageError(f"{where} does not begin where its record says")
        main = self._tensors(header, where)
        meta_member = self._header(header.next_header, f"{video.key}.json", where)
        if meta_member.size > MAX_JSON_BYTES:
            raise DamageError(f"{where} has {meta_member.size} bytes of JSON")
        meta = parse_meta(bytes(self._source.get(meta_member.offset, meta_member.size)), where)
        grid = self._info.grid
        frames = video.frames
        head = head_from(
            meta,
            self._tensor(main, "similarity", "F32", (frames, grid.rows, grid.cols)),
            self._tensor(main, "frame_index", "I64", (frames,)),
            self._tensor(main, "frame_pts", "F64", (frames,)),
            where,
        )
        self._opened = _Opened(row, check_head(head, self._info, video), meta_member.next_header, [main])
        return self._opened

    def _part(self, opened: _Opened, level: int) -> _Tensors:
        """The member of a level; further levels follow the JSON, one after the other."""
        check_level(self._info, level)
        while len(opened.levels) <= level:
            suffix = level_suffix(self._info.level_thresholds[len(opened.levels)])
            where = f"{self._source.where} ({opened.head.id}, {suffix})"
            member = self._header(opened.next_header, f"{opened.head.key}.{suffix}.safetensors", where)
            opened.levels.append(self._tensors(member, where))
            opened.next_header = member.next_header
        return opened.levels[level]

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

    def _front_groups(self, part: _Tensors, level: int) -> LevelGroups:
        """Groups of a level but for `group_size`, which stands after the tokens."""
        scale = self._tensor(part, "token_scale") if self._info.dtype == "int8" else None
        placeholder = np.empty(0, np.uint8)
        return LevelGroups(
            self._info.level_thresholds[level], placeholder, self._tensor(part, "row_splits"), scale
        )

    def _tensor(
        self, part: _Tensors, name: str, dtype: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Array:
        spec = part.specs.get(name)
        if spec is None or (dtype and spec.dtype != dtype) or (shape is not None and spec.shape != shape):
            raise DamageError(
                f"{part.member.name} in {self._source.where} has no tensor {name} {dtype} {shape}"
            )
        if spec.end <= len(part.front):
            return view_tensor(part.front, spec)
        data = self._source.get(part.member.offset + spec.begin, spec.end - spec.begin)
        return view_tensor(data, spec, -spec.begin)

    def _tokens(self, part: _Tensors, begin: int, end: int) -> Array:
        spec = part.specs["tokens"]
        row_bytes = spec.shape[1] * spec.numpy_dtype.itemsize
        piece = TensorSpec(spec.dtype, (end - begin, spec.shape[1]), 0, (end - begin) * row_bytes)
        data = self._source.get(
            part.member.offset + spec.begin + begin * row_bytes, (end - begin) * row_bytes
        )
        return view_tensor(data, piece)
