"""WebDataset shards: one tar, two members a sample (more in the explicit layout)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain

import numpy as np

from dyntok.records import FileDigest, Level, Sample
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import FORMAT_VERSION, level_suffix, threshold_name
from dyntok.store.root import StoreRoot
from dyntok.store.samples import checked_chunks, marker_index, meta_json
from dyntok.store.tar.stream import TarMember, TarStream
from dyntok.store.tensorfile import TOKEN_DTYPES, Array, encode_header, raw_bytes
from dyntok.store.writer import ShardWriter, Written


class TarShardWriter(ShardWriter):
    """Members of a sample: `<key>.safetensors`, `<key>.json`, and `<key>.t050.safetensors` per further level."""

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, *, statistics: bool = True) -> None:
        super().__init__(root, info, shard, statistics=statistics)
        with self._explained("write"):
            self._file = self._temporary.open("xb", buffering=0)
        self._tar = TarStream(self._file)

    @property
    def size_bytes(self) -> int:
        return self._tar.position

    def _undo(self) -> Callable[[], None]:
        return partial(self._tar.rewind, self._tar.mark())

    def _close(self) -> tuple[FileDigest, ...]:
        self._tar.finish()
        self._file.close()
        return (FileDigest(self._path, self._tar.position, self._tar.sha256),)

    def _drop(self) -> None:
        self._tar.close()
        with suppress(OSError):  # what could not be flushed is dropped anyway
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, sample: Sample) -> Written:
        self._tar.begin_stretch()
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
        return Written(main.offset, main.size, self._tar.stretch_checksum)

    def _member(self, sample: Sample, level: Level, before: dict[str, tuple[str, Array]], markers: bool) -> TarMember:
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
        return self._tar.add(f"{sample.key}{suffix}.safetensors", nbytes, content)
