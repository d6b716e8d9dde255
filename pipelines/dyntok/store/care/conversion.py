"""The same store in the other shard format, shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dyntok.errors import DamageError, StoreError, StoreMismatchError, UsageError
from dyntok.records import VideoRow
from dyntok.store.completion import CompletionRecord, completed_shards
from dyntok.store.dataset import SHARD_FORMATS, DatasetInfo
from dyntok.store.formats import open_shard_reader, open_shard_writer
from dyntok.store.index_build import rewrite_locations
from dyntok.store.manifest import Manifest, write_manifest
from dyntok.store.names import (
    DATASET_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    SHARD_FOLDER,
    is_ignored,
)
from dyntok.store.reader import ShardReader, sample_of
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_bytes, digest_file
from dyntok.store.writer import ShardWriter, commit_shard

_MAX_COPY_BYTES = 2**33


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert` did. `already` counts the shards that an earlier, interrupted call had finished."""

    source: str
    target: str
    format: str
    shards: int
    already: int
    videos: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def convert(
    source_url: str,
    target_url: str,
    *,
    format: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Write a complete store's content to `target_url` with shards of `format`.

    Every input file is held against its digest first, so that damage is never given a new digest. Shards are committed
    one by one; the same call again goes on where it stopped. There and back gives the same bytes.

    Args:
        format: `webdataset` or `zarr`.
        on_progress: called with (shards done, shards in all).

    Raises:
        UsageError: unknown format, or the source has that format already.
        StoreMismatchError: the target holds something else.
        StoreError: the source is not complete, or reading or writing failed.
        DamageError: a source file is not the one that was written.
    """
    if format not in SHARD_FORMATS:
        raise UsageError(f"{format!r} is no shard format", hint=f"one of {', '.join(SHARD_FORMATS)}")
    source = StoreRoot.open(source_url)
    info = DatasetInfo.load(source)
    if info.shard_format == format:
        other = "zarr" if format == "webdataset" else "webdataset"
        raise UsageError(
            f"{source.url} has {format} shards already",
            hint=f"--format {other} makes the others; cp copies a store",
        )
    manifest = Manifest.load(source)
    if manifest is None:
        raise StoreError(
            f"{source.url} is not complete, so it cannot be converted",
            hint="run the same `dyntok encode` command again to finish it",
        )
    target = StoreRoot.open(target_url, create=True)
    target_info = replace(info, shard_format=format)
    _claim(target, target_info)
    job = _Conversion(source, target, info, target_info)
    shards = completed_shards(source)
    for done, shard in enumerate(shards):
        if on_progress is not None:
            on_progress(done, len(shards))
        job.shard(shard)
    job.copy_files(manifest)
    rewrite_locations(source, target, job.places)
    write_manifest(target)
    if on_progress is not None:
        on_progress(len(shards), len(shards))
    return ConvertReport(source.url, target.url, format, len(shards), job.already, job.videos, job.bytes)


def _claim(target: StoreRoot, info: DatasetInfo) -> None:
    """Make `target` the store described by `info`, unless it is something else."""
    if target.exists(DATASET_FILE):
        if DatasetInfo.load(target) != info:
            raise StoreMismatchError(
                f"{target.url} is the store of something else", hint="convert into a new folder"
            )
        return
    others = [path for path in target.list() if not is_ignored(path)]
    if others:
        raise StoreMismatchError(
            f"{target.url} is not empty (for example {others[0]})", hint="convert into a new folder"
        )
    info.save(target)


class _Conversion:
    """One conversion: copies shards, remembers where videos went."""

    def __init__(
        self, source: StoreRoot, target: StoreRoot, info: DatasetInfo, target_info: DatasetInfo
    ) -> None:
        self._source, self._target = source, target
        self._info, self._target_info = info, target_info
        self.places: dict[int, tuple[np.ndarray[Any, np.dtype[np.int64]], ...]] = {}
        self.already = 0
        self.videos = 0
        self.bytes = 0

    def shard(self, shard: int) -> None:
        """Convert one shard, if the target does not have it yet."""
        record = CompletionRecord.load_strict(self._source, shard)
        done = CompletionRecord.load(self._target, shard, record.plan_digest)
        if done is None:
            done = self._write(record)
        else:
            self.already += 1
        self.videos += len(done.done)
        self.bytes += sum(file.bytes for file in done.files)
        self.places[shard] = (
            np.array([row.offset for row in done.done], np.int64),
            np.array([row.nbytes for row in done.done], np.int64),
        )

    def _write(self, record: CompletionRecord) -> CompletionRecord:
        for file in record.files:
            if digest_file(self._source, file.path) != file:
                raise DamageError(
                    f"{self._source.where(file.path)} is damaged: its sha256 is not the recorded one",
                    hint="`dyntok verify` lists all damage",
                )
        reader = open_shard_reader(self._source, self._info, record.shard, record)
        writer = open_shard_writer(
            self._target, self._target_info, record.shard, statistics=record.statistics is not None
        )
        try:
            rows: list[VideoRow] = [row for row in record.videos if row.row < 0]
            rows += [_copy(reader, writer, row) for row in reader.rows]
            content = writer.finish()
            return commit_shard(self._target, self._target_info, content, rows, record.plan_digest)
        finally:
            writer.abort()

    def copy_files(self, manifest: Manifest) -> None:
        """Copy what is the same in both formats: the plan, the row marker."""
        for file in manifest.files:
            if file.path in (DATASET_FILE, INDEX_FILE, MANIFEST_FILE) or file.path.startswith(
                SHARD_FOLDER + "/"
            ):
                continue
            data = self._source.read_bytes(file.path, _MAX_COPY_BYTES)
            if digest_bytes(file.path, data) != file:
                raise DamageError(
                    f"{self._source.where(file.path)} is damaged: its sha256 is not the recorded one"
                )
            self._target.write_atomic(file.path, data)


def _copy(reader: ShardReader, writer: ShardWriter, row: VideoRow) -> VideoRow:
    return writer.add(
        sample_of(reader, row.row),
        position=row.position,
        source=row.source,
        attempt=row.attempt,
        seconds=row.seconds,
        decoder=row.decoder,
    )
