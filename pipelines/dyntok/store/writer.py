"""Writing one shard, and the commit that makes it exist."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath

from dyntok.errors import StoreError
from dyntok.records import FileDigest, Sample, VideoRow
from dyntok.stats import MapStatistics
from dyntok.store.completion import DONE, CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import record_path, shard_data_path, statistics_path
from dyntok.store.root import StoreRoot, explain_os_error
from dyntok.store.samples import check_sample, count_tokens
from dyntok.store.signed import digest_bytes
from dyntok.store.statistics import map_shape, statistics_bytes


@dataclass(frozen=True, slots=True)
class ShardContent:
    """A finished shard in scratch space, ready to commit.

    Attributes:
        temporary: the tar file or the Zarr folder.
        files: digests under the paths the files will have.
        sample_count: videos it holds.
        statistics: content of its statistics file; None for a shard without.
    """

    shard: int
    temporary: Path
    files: tuple[FileDigest, ...]
    sample_count: int
    statistics: bytes | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Where a sample lies: `offset`, `nbytes` and `checksum` as in its row of the completion record."""

    offset: int
    nbytes: int
    checksum: str = ""


class ShardWriter(ABC):
    """Writes samples one by one into scratch space; nothing shows in the store before `commit_shard`.

    A format fills in how a sample is written and undone, and what is left at the end.
    """

    def __init__(self, root: StoreRoot, info: DatasetInfo, shard: int, *, statistics: bool = True) -> None:
        self._info = info
        self._shard = shard
        self._path = shard_data_path(shard, info.shard_format)
        name, suffix = PurePath(self._path).stem, PurePath(self._path).suffix
        self._temporary = root.scratch_dir() / f"{name}-{uuid.uuid4().hex}{suffix}"
        self._keys: set[str] = set()
        self._statistics = MapStatistics.empty(map_shape(info)) if statistics else None

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
        """Append one video and return its row of the completion record, all fields set.

        Token chunks are read once and never held together. If it raises, for whatever reason (the iterable of
        chunks included), the shard is as it was before and the next video can be added.

        Raises:
            StoreError: the sample is not what the store announces, or writing failed (path and remedy named).
            VideoError: `non_finite` tokens.
        """
        check_sample(sample, self._info)
        if sample.key in self._keys:
            raise StoreError(f"shard {self._shard} already holds a video with the key {sample.key!r}")
        undo = self._undo()
        try:
            with self._explained("write"):
                place = self._write(sample)
        except BaseException:
            with self._explained("write"):
                undo()
            raise
        row = len(self._keys)
        self._keys.add(sample.key)
        if self._statistics is not None:
            self._statistics = self._statistics + MapStatistics.of(sample.similarity, self._statistics.shape)
        return VideoRow(
            id=sample.id,
            key=sample.key,
            source=source,
            position=position,
            status=DONE,
            attempt=attempt,
            row=row,
            offset=place.offset,
            nbytes=place.nbytes,
            frames=sample.frame_count,
            seconds=float(seconds),
            patches=sample.similarity.size,
            tokens=count_tokens(sample.similarity, self._info.thresholds),
            decoder=decoder,
            checksum=place.checksum,
        )

    def finish(self) -> ShardContent:
        """Close the shard. Nothing can be added afterwards."""
        with self._explained("write"):
            files = self._close()
        statistics = statistics_bytes(self._statistics, self._shard) if self._statistics else None
        return ShardContent(self._shard, self._temporary, files, len(self._keys), statistics)

    def abort(self) -> None:
        """Drop everything written. Harmless after `finish` and `commit_shard`, and when called twice."""
        with self._explained("remove"):
            self._drop()

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return explain_os_error(str(self._temporary), action)

    # what a format fills in -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes written so far, about."""

    @abstractmethod
    def _undo(self) -> Callable[[], None]:
        """What takes back all that is written from here on."""

    @abstractmethod
    def _write(self, sample: Sample) -> Written:
        """Write a sample, which fits the store."""

    @abstractmethod
    def _close(self) -> tuple[FileDigest, ...]:
        """Write what is left; the files of the shard, with the paths that they will have."""

    @abstractmethod
    def _drop(self) -> None:
        """Remove everything written, if it is still there."""


def commit_shard(
    root: StoreRoot,
    info: DatasetInfo,
    content: ShardContent,
    videos: Iterable[VideoRow],
    plan_digest: str,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> CompletionRecord:
    """Give a finished shard its name, then write its completion record. After the record, the shard exists.

    A data file that an earlier run left without a valid record is replaced; so is an invalid record.

    Args:
        videos: one row per planned video of the shard: those `add` returned and `failed_row`s, in any order.
        plan_digest: `plan_digest(entries)` of the shard's plan rows.
        stop: asked while a shard is uploaded; if it says so, the upload is taken back.

    Raises:
        StoreError: rows and content disagree, writing failed, or `stop` stopped it.
    """
    rows = tuple(sorted(videos, key=lambda row: row.position))
    files, statistics = content.files, statistics_path(content.shard)
    if content.statistics is not None:
        files += (digest_bytes(statistics, content.statistics),)
    record = CompletionRecord(content.shard, plan_digest, files, rows)
    if [row.row for row in record.done] != list(range(content.sample_count)):
        raise StoreError(f"shard {content.shard} holds {content.sample_count} videos, its rows name {len(record.done)}")
    path = shard_data_path(content.shard, info.shard_format)
    root.remove(record_path(content.shard))
    commit = root.commit_tree if content.temporary.is_dir() else root.commit_file
    commit(content.temporary, path, stop)
    if content.statistics is not None:
        root.write_atomic(statistics, content.statistics)
    else:
        root.remove(statistics)
    record.save(root)
    return record
