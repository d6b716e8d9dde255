"""WebDataset shards: one tar, two members a sample (more in the explicit layout)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import numpy as np

from dyntok.errors import StoreError
from dyntok.records import FileDigest, Level, Sample, VideoRow
from dyntok.stats import MapStatistics
from dyntok.store.completion import DONE
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import FORMAT_VERSION, level_suffix, shard_data_path, shard_name, threshold_name
from dyntok.store.root import StoreRoot, explain_os_error
from dyntok.store.samples import check_sample, checked_chunks, count_tokens, marker_index, meta_json
from dyntok.store.statistics import map_shape, statistics_bytes
from dyntok.store.tar.stream import TarStream
from dyntok.store.tensorfile import TOKEN_DTYPES, Array, encode_header, raw_bytes
from dyntok.store.writer import ShardContent


class TarShardWriter:
    """Members of a sample: `<key>.safetensors`, `<key>.json`, and `<key>.t050.safetensors` per further level."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, *, statistics: bool = True) -> None:
        self._root = root
        self._info = info
        self._shard = shard
        self._path = shard_data_path(shard, "webdataset")
        self._temporary = root.scratch_dir() / f"{shard_name(shard)}-{uuid.uuid4().hex}.tar"
        self._count = 0
        self._keys: set[str] = set()
        self._statistics = MapStatistics.empty(map_shape(info)) if statistics else None
        with explain_os_error(str(self._temporary), "write"):
            self._file = self._temporary.open("xb", buffering=0)
        self._tar = TarStream(self._file)

    @property
    def size_bytes(self) -> int:
        return self._tar.position

    def add(
        self,
        sample: Sample,
        *,
        position: int,
        source: str,
        attempt: int = 1,
        seconds: float = 0.0,
        decoder: str = "",
    ) -> VideoRow:
        check_sample(sample, self._info)
        if sample.key in self._keys:
            raise StoreError(f"shard {self._shard} already holds a video with the key {sample.key!r}")
        mark = self._tar.mark()
        self._tar.begin_stretch()
        try:
            with explain_os_error(str(self._temporary), "write"):
                offset, nbytes = self._write(sample)
        except BaseException:
            with explain_os_error(str(self._temporary), "write"):
                self._tar.rewind(mark)
            raise
        self._keys.add(sample.key)
        self._count += 1
        if self._statistics is not None:
            self._statistics = self._statistics + MapStatistics.of(sample.similarity, self._statistics.shape)
        return VideoRow(
            id=sample.id,
            key=sample.key,
            source=source,
            position=position,
            status=DONE,
            attempt=attempt,
            row=self._count - 1,
            offset=offset,
            nbytes=nbytes,
            frames=sample.frame_count,
            seconds=float(seconds),
            patches=sample.similarity.size,
            tokens=count_tokens(sample.similarity, self._info.thresholds),
            decoder=decoder,
            checksum=self._tar.stretch_checksum,
        )

    def finish(self) -> ShardContent:
        with explain_os_error(str(self._temporary), "write"):
            self._tar.finish()
            self._file.close()
        digest = FileDigest(self._path, self._tar.position, self._tar.sha256)
        statistics = statistics_bytes(self._statistics, self._shard) if self._statistics else None
        return ShardContent(self._shard, self._temporary, (digest,), self._count, statistics)

    def abort(self) -> None:
        self._tar.close()
        with suppress(OSError):  # what could not be flushed is dropped anyway
            self._file.close()
        with explain_os_error(str(self._temporary), "remove"):
            self._temporary.unlink(missing_ok=True)

    def _write(self, sample: Sample) -> tuple[int, int]:
        """Write all members; returns the byte range of the main one."""
        meta = meta_json(sample)
        explicit = self._info.layout == "explicit"
        fixed: dict[str, tuple[str, Array]] = {
            "frame_pts": ("F64", np.asarray(sample.frames.frame_pts, np.float64)),
            "frame_index": ("I64", np.asarray(sample.frames.frame_index, np.int64)),
        }
        main = self._member(sample, sample.levels[0], fixed, explicit)
        self._tar.add(f"{sample.key}.json", len(meta), [meta])
        for level in sample.levels[1:]:
            self._member(sample, level, {}, True)
        return main

    def _member(
        self, sample: Sample, level: Level, before: dict[str, tuple[str, Array]], markers: bool
    ) -> tuple[int, int]:
        """One safetensors member. Wider dtypes stand first, so that all are aligned without holes."""
        tensors = dict(before)
        if markers:
            tensors["row_marker_index"] = ("I64", marker_index(level.row_splits))
        if before:
            tensors["similarity"] = ("F32", sample.similarity)
        tensors["row_splits"] = ("I32", level.row_splits)
        if level.token_scale is not None:
            tensors["token_scale"] = ("F32", level.token_scale)
        layout = {name: (dtype, array.shape) for name, (dtype, array) in tensors.items()}
        layout["tokens"] = (TOKEN_DTYPES[sample.dtype], (level.token_count, sample.token_dim))
        layout["group_size"] = ("U8", level.group_size.shape)
        metadata = {
            "format": "dyntok",
            "format_version": str(FORMAT_VERSION),
            "threshold": threshold_name(level.threshold),
        }
        header, nbytes = encode_header(layout, metadata)
        suffix = "" if before else f".{level_suffix(level.threshold)}"
        content: Iterator[bytes | memoryview] = chain(
            [header],
            (raw_bytes(array) for _, array in tensors.values()),
            (raw_bytes(chunk) for chunk in checked_chunks(sample, level)),
            [raw_bytes(level.group_size)],
        )
        member = self._tar.add(f"{sample.key}{suffix}.safetensors", nbytes, content)
        return member.offset, member.size
