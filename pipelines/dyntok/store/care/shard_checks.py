"""What must hold inside one shard: every part of every video agrees with every other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dyntok.errors import DyntokError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.formats import open_shard_reader
from dyntok.store.names import level_suffix, shard_data_path
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot
from dyntok.store.samples import (
    VideoHead,
    all_finite,
    count_tokens,
    groups_problem,
    map_problem,
    marker_index,
)
from dyntok.store.signed import digest_bytes
from dyntok.store.statistics import MAX_STATISTICS_BYTES, gather_statistics, statistics_bytes
from dyntok.store.tar.reader import ByteSource
from dyntok.store.tar.stream import BLOCK, parse_tar_header

Problem = tuple[str, str, str]


def shard_problems(root: StoreRoot, info: DatasetInfo, record: CompletionRecord) -> Iterator[Problem]:
    """(kind, video id, message) for everything in a shard that contradicts the format or the record."""
    try:
        reader = open_shard_reader(root, info, record.shard, record)
        if info.shard_format == "webdataset":
            yield from _member_problems(root, info, record)
    except DyntokError as error:
        yield "shard", "", error.message
        return
    sound = True
    for row in reader.rows:
        try:
            for message in _video_problems(reader, info, row):
                sound = False
                yield "sample", row.id, message
        except DyntokError as error:
            sound = False
            yield "sample", row.id, error.message
    problem = _statistics_problem(root, info, record, reader) if sound else None
    if problem is not None:
        yield "shard", "", problem


def _member_problems(root: StoreRoot, info: DatasetInfo, record: CompletionRecord) -> Iterator[Problem]:
    """The tar must hold the members of the record's videos, in order, and nothing else."""
    suffixes = [".safetensors", ".json"]
    suffixes += [f".{level_suffix(threshold)}.safetensors" for threshold in info.level_thresholds[1:]]
    expected = [row.key + suffix for row in record.done for suffix in suffixes]
    path = shard_data_path(record.shard, "webdataset")
    source = ByteSource(root, path)
    offset = 0
    names: list[str] = []
    while (
        member := parse_tar_header(bytes(source.get(offset, BLOCK)), offset + BLOCK, source.size, source.where)
    ) is not None:
        names.append(member.name)
        offset = member.next_header
        if len(names) > len(expected):
            break
    if names != expected:
        yield "shard", "", f"{path} holds other members than its record names"
    elif bytes(source.get(offset, source.size - offset)) != bytes(2 * BLOCK):
        yield "shard", "", f"{path} goes on after the end of its archive"


def _video_problems(reader: ShardReader, info: DatasetInfo, row: VideoRow) -> Iterator[str]:
    head = reader.head(row.row)
    problem = map_problem(head.similarity)
    if problem:
        yield problem
        return
    if row.tokens != count_tokens(head.similarity, info.thresholds):
        yield "the token counts of its record contradict the similarity map"
    if row.patches != head.similarity.size:
        yield f"its record counts {row.patches} patches, the similarity map has {head.similarity.size}"
    if (head.frames.frame_index < 0).any() or not np.isfinite(head.frames.frame_pts).all():
        yield "a frame has a negative number or no finite time"
    # Groups that follow from the map fill its rows, and those of a lower threshold are nested in the finest.
    for level, threshold in enumerate(info.level_thresholds):
        for problem in _level_problems(reader, info, head, row.row, level):
            yield f"at threshold {threshold:g}: {problem}"


def _level_problems(reader: ShardReader, info: DatasetInfo, head: VideoHead, row: int, level: int) -> Iterator[str]:
    groups = reader.groups(row, level)
    count = 0
    finite = True
    for chunk in reader.token_chunks(row, level):
        count += len(chunk)
        finite = finite and all_finite(chunk, info.dtype)
    if not finite:
        yield "a token is not finite"
    problem = groups_problem(head.similarity, groups, count, info.dtype)
    if problem:
        yield problem
    if info.layout == "explicit" and not np.array_equal(
        reader.row_marker_index(row, level), marker_index(groups.row_splits)
    ):
        yield "row_marker_index contradicts row_splits"


def _statistics_problem(
    root: StoreRoot, info: DatasetInfo, record: CompletionRecord, reader: ShardReader
) -> str | None:
    """How a shard's statistics, if their digest is right, contradict its similarity maps; None if nowhere."""
    file = record.statistics
    data = root.read_if_there(file.path, MAX_STATISTICS_BYTES) if file is not None else None
    if file is None or data is None or digest_bytes(file.path, data) != file:
        return None
    if data == statistics_bytes(gather_statistics(reader, info), record.shard):
        return None
    return f"{file.path} contradicts the similarity maps of the shard"
