"""Where in a shard a damaged file is damaged, and which videos that touches.

A tar is told apart by the checksums that its record has for each video, a Zarr array by those of its chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xxhash
from google_crc32c import value as crc32c

from dyntok.errors import DyntokError
from dyntok.records import FileDigest, VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import level_suffix, shard_data_path, threshold_name
from dyntok.store.root import StoreRoot
from dyntok.store.tar.stream import BLOCK
from dyntok.store.zarr.format import ColumnSpec, level_columns, video_columns

_END_BLOCKS = 2 * BLOCK
_INDEX_ENTRY = 16
_CRC_BYTES = 4
_ABSENT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """A damaged stretch of a file: what it is, and the ids of the videos it touches."""

    what: str
    videos: tuple[str, ...]


# tars --------------------------------------------------------------------------------------------------------


def digest_tar(chunks: Iterable[bytes], record: CompletionRecord, file: FileDigest) -> tuple[FileDigest, list[Place]]:
    """The digest of a shard's tar, and where it differs from `file`, which its record says it is; read once.

    What is behind the last video, or of no video that has a checksum, counts as the nearest one's.
    """
    sha = hashlib.sha256()
    spans = list(_spans(record.done, file.bytes))
    sums = [xxhash.xxh3_128() for _ in spans]
    position = number = 0
    for chunk in chunks:
        sha.update(chunk)
        view, begin = memoryview(chunk), position
        position += len(chunk)
        while number < len(spans) and spans[number][1] <= position:
            sums[number].update(view[max(0, spans[number][0] - begin) : spans[number][1] - begin])
            number += 1
        if number < len(spans) and spans[number][0] < position:
            sums[number].update(view[max(0, spans[number][0] - begin) :])
    digest = FileDigest(file.path, position, sha.hexdigest())
    if digest == file:
        return digest, []
    places = [
        Place(f"bytes {begin} to {end}", (row.id,))
        for row, (begin, end), found in zip(record.done, spans, sums, strict=True)
        if row.checksum and found.hexdigest() != row.checksum
    ]
    if not places and record.done:
        places = [Place("the end of the archive", (record.done[-1].id,))]
    return digest, places


def _spans(rows: tuple[VideoRow, ...], size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of each video in a tar: from its first header to that of the next."""
    begins = [row.offset - BLOCK for row in rows] + [size - _END_BLOCKS]
    for begin, end in pairwise(begins):
        yield max(0, begin), max(0, begin, end)


# Zarr --------------------------------------------------------------------------------------------------------


def place_in_zarr(root: StoreRoot, info: DatasetInfo, record: CompletionRecord, path: str) -> list[Place]:
    """Where a file of a Zarr shard is damaged, by the checksums of its chunks."""
    everything = tuple(row.id for row in record.done)
    group = shard_data_path(record.shard, "zarr")
    found = _column_of(info, path.removeprefix(group + "/"))
    if found is None:
        return [Place("the metadata of the shard's arrays", everything)]
    spec, folder, number = found
    stored = f"array {folder}/{spec.name}" if folder else f"array {spec.name}"
    if number < 0:
        return [Place(f"the metadata of {stored}", everything)]
    edges = _edges(root, info, record, spec, folder)
    first = number * spec.shard_rows
    try:
        broken = broken_chunks(root.read_bytes(path, 2**31), spec)
    except DyntokError:
        broken = None
    if not broken:
        return [Place(stored, _touched(record, edges, spec, first, first + spec.shard_rows))]
    places = []
    for chunk in broken:
        begin = first + chunk * spec.chunk_rows
        end = begin + spec.chunk_rows
        places.append(Place(f"{stored}, rows {begin} to {end - 1}", _touched(record, edges, spec, begin, end)))
    return places


def broken_chunks(data: bytes, spec: ColumnSpec) -> list[int] | None:
    """Numbers of the inner chunks of a Zarr shard file whose CRC-32C is wrong; None if its index is damaged."""
    count = spec.shard_rows // spec.chunk_rows
    index_bytes = count * _INDEX_ENTRY
    tail = data[-(index_bytes + _CRC_BYTES) :]
    if len(tail) < index_bytes + _CRC_BYTES or not _is_sound(tail):
        return None
    entries = np.frombuffer(tail[:index_bytes], "<u8").reshape(count, 2).tolist()
    return [
        number
        for number, (offset, length) in enumerate(entries)
        if offset != _ABSENT and not _is_sound(data[offset : offset + length])
    ]


def _is_sound(data: bytes) -> bool:
    return len(data) > _CRC_BYTES and crc32c(data[:-_CRC_BYTES]) == int.from_bytes(data[-_CRC_BYTES:], "little")


def _column_of(info: DatasetInfo, inside: str) -> tuple[ColumnSpec, str, int] | None:
    """Array, level's folder and number of a chunk file (-1: the array's metadata); None for any other file."""
    parts = inside.split("/")
    folders = {level_suffix(threshold) for threshold in info.level_thresholds[1:]}
    folder = parts.pop(0) if parts[0] in folders else ""
    columns = level_columns(info) if folder else [*level_columns(info), *video_columns(info)]
    spec = next((column for column in columns if parts and column.name == parts[0]), None)
    if spec is None:
        return None
    if len(parts) > 2 and parts[1] == "c" and parts[2].isdecimal():
        return spec, folder, int(parts[2])
    return spec, folder, -1


def _edges(
    root: StoreRoot, info: DatasetInfo, record: CompletionRecord, spec: ColumnSpec, folder: str
) -> npt.NDArray[np.int64] | None:
    """`[V + 1]` first row of each video in an array, by what the record counts; None where it does not say."""
    rows = record.done
    kind = spec.dimensions[0]
    if kind == "token":
        level = next((t for t in info.level_thresholds[1:] if level_suffix(t) == folder), info.stored_threshold)
        counts = [row.tokens.get(threshold_name(level), 0) for row in rows]
    elif kind in ("frame", "row", "row_edge"):
        per_frame = 1 if kind == "frame" else info.grid.rows
        counts = [row.frames * per_frame for row in rows]
    elif kind == "video_edge":
        counts = [1] * len(rows)
    else:
        return _json_edges(root, info, record)
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _json_edges(root: StoreRoot, info: DatasetInfo, record: CompletionRecord) -> npt.NDArray[np.int64] | None:
    """How long each video's JSON is stands in the shard only, in an array of its own."""
    from dyntok.store.zarr.reader import ZarrShardReader

    try:
        return ZarrShardReader(root, info, record.shard, record).json_edges()
    except DyntokError:
        return None


def _touched(
    record: CompletionRecord, edges: npt.NDArray[np.int64] | None, spec: ColumnSpec, begin: int, end: int
) -> tuple[str, ...]:
    """Videos with a row in `begin .. end`. A prefix sum is of the videos on both sides of it."""
    if edges is None:
        return tuple(row.id for row in record.done)
    if spec.dimensions[0] in ("row_edge", "video_edge"):
        begin -= 1
    hit = (edges[:-1] < end) & (edges[1:] > begin)
    touched = tuple(row.id for row, is_hit in zip(record.done, hit.tolist(), strict=True) if is_hit)
    return touched or tuple(row.id for row in record.done[-1:])  # behind the last row
