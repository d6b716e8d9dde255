"""The same store in the other shard format, shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from dyntok.errors import DamageError, StoreError, StoreMismatchError, UsageError
from dyntok.records import FileDigest, VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import SHARD_FORMATS, DatasetInfo
from dyntok.store.formats import open_shard_reader, open_shard_writer
from dyntok.store.index_build import build_index
from dyntok.store.manifest import Manifest, write_manifest
from dyntok.store.names import (
    DATASET_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    SHARD_FOLDER,
    is_ignored,
    shard_of_record,
)
from dyntok.store.plan_rows import plan_rows
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
    """Write a complete store's content to `target_url` with shards of `format`; only for its one writer.

    Every input file is held against its digest first, so that damage is never given a new digest. Shards are committed
    one by one; the same call again goes on where it stopped. There and back gives the same bytes.

    The target is the source as its manifest was when the call began: what a run appends to it meanwhile is not taken.

    Args:
        format: `webdataset` or `zarr`.
        on_progress: called with (shards done, shards in all).

    Raises:
        UsageError: unknown format, or the source has that format already.
        StoreMismatchError: the target holds something else.
        StoreError: the source is not complete, or changed just now; or reading or writing failed.
        DamageError: a source file is not the one that was written.
    """
    return Conversion(source_url, target_url, format).run(on_progress)


class Conversion:
    """What `convert` does, in two steps: before `run`, nothing is written but a folder for the target."""

    def __init__(self, source_url: str, target_url: str, format: str) -> None:
        if format not in SHARD_FORMATS:
            raise UsageError(f"{format!r} is no shard format", hint=f"one of {', '.join(SHARD_FORMATS)}")
        self._source = StoreRoot.open(source_url)
        self._info = DatasetInfo.load(self._source)
        if self._info.shard_format == format:
            other = "zarr" if format == "webdataset" else "webdataset"
            raise UsageError(
                f"{self._source.url} has {format} shards already",
                hint=f"--format {other} makes the others; cp copies a store",
            )
        manifest = Manifest.load(self._source)
        if manifest is None:
            raise StoreError(
                f"{self._source.url} is not complete, so it cannot be converted",
                hint="run the same `dyntok encode` command again to finish it",
            )
        self._manifest = manifest
        self._target_info = replace(self._info, shard_format=format)
        self.target = StoreRoot.open(target_url, create=True)
        self._refuse_another()

    def run(self, on_progress: Callable[[int, int], None] | None = None) -> ConvertReport:
        """Write the target, or what is missing of it."""
        self._refuse_another()  # which may have come since
        if not self.target.exists(DATASET_FILE):
            self._target_info.save(self.target)
        self._copy_files()
        records = {n: file for file in self._manifest.files if (n := shard_of_record(file.path)) is not None}
        already = videos = size = 0
        for count, (shard, file) in enumerate(records.items()):
            if on_progress is not None:
                on_progress(count, len(records))
            record = CompletionRecord.from_bytes(self._read(file), shard, self._source.where(file.path))
            done = CompletionRecord.load(self.target, shard, record.plan_digest)
            already += done is not None
            done = done or self._write(record)
            videos += len(done.done)
            size += sum(written.bytes for written in done.files)
        build_index(self.target, plan_rows(self.target))
        write_manifest(self.target)
        if on_progress is not None:
            on_progress(len(records), len(records))
        return ConvertReport(
            self._source.url,
            self.target.url,
            self._target_info.shard_format,
            len(records),
            already,
            videos,
            size,
        )

    def _refuse_another(self) -> None:
        """Raise StoreMismatchError where the target is something else."""
        if self.target.exists(DATASET_FILE):
            if DatasetInfo.load(self.target) != self._target_info:
                raise StoreMismatchError(
                    f"{self.target.url} is the store of something else", hint="convert into a new folder"
                )
            return
        others = [path for path in self.target.list() if not is_ignored(path)]
        if others:
            raise StoreMismatchError(
                f"{self.target.url} is not empty (for example {others[0]})", hint="convert into a new folder"
            )

    def _copy_files(self) -> None:
        """What is the same in both formats: the plan, the row marker."""
        for file in self._manifest.files:
            if file.path in (DATASET_FILE, INDEX_FILE) or file.path.startswith(f"{SHARD_FOLDER}/"):
                continue
            data = self._read(file)
            if self.target.read_if_there(file.path, _MAX_COPY_BYTES) != data:
                # A complete store becomes an incomplete one before its plan grows.
                self.target.remove(MANIFEST_FILE)
                self.target.write_atomic(file.path, data)

    def _write(self, record: CompletionRecord) -> CompletionRecord:
        for file in record.files:
            self._hold(digest_file(self._source, file.path), file)
        reader = open_shard_reader(self._source, self._info, record.shard, record)
        writer = open_shard_writer(
            self.target, self._target_info, record.shard, statistics=record.statistics is not None
        )
        try:
            rows: list[VideoRow] = [row for row in record.videos if row.row < 0]
            rows += [_copy(reader, writer, row) for row in reader.rows]
            content = writer.finish()
            return commit_shard(self.target, self._target_info, content, rows, record.plan_digest)
        finally:
            writer.abort()

    def _read(self, file: FileDigest) -> bytes:
        data = self._source.read_bytes(file.path, _MAX_COPY_BYTES)
        self._hold(digest_bytes(file.path, data), file)
        return data

    def _hold(self, found: FileDigest, written: FileDigest) -> None:
        """Raise unless a file of the source is the one that was written."""
        if found == written:
            return
        if Manifest.load(self._source) != self._manifest:
            raise StoreError(
                f"{self._source.url} was written to just now",
                hint="run the same command again when its run is complete; finished shards are kept",
            )
        raise DamageError(
            f"{self._source.where(found.path)} is damaged: its sha256 is not the recorded one",
            hint="`dyntok verify` lists all damage",
        )


def _copy(reader: ShardReader, writer: ShardWriter, row: VideoRow) -> VideoRow:
    return writer.add(
        sample_of(reader, row.row),
        position=row.position,
        source=row.source,
        attempt=row.attempt,
        seconds=row.seconds,
        decoder=row.decoder,
    )
