"""Writing one shard, and the commit that makes it exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dyntok.errors import StoreError
from dyntok.records import FileDigest, Sample, VideoRow
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import record_path, shard_data_path, statistics_path
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_bytes


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


class ShardWriter(Protocol):
    """Writes samples one by one into scratch space; nothing shows in the store before `commit_shard`."""

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

    @property
    def size_bytes(self) -> int:
        """Bytes written so far, about."""

    def finish(self) -> ShardContent:
        """Close the shard. Nothing can be added afterwards."""

    def abort(self) -> None:
        """Drop everything written. Harmless after `finish` and `commit_shard`, and when called twice."""


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
        raise StoreError(
            f"shard {content.shard} holds {content.sample_count} videos, its rows name {len(record.done)}"
        )
    path = shard_data_path(content.shard, info.shard_format)
    root.remove(record_path(content.shard))
    if info.shard_format == "zarr":
        root.commit_tree(content.temporary, path, stop)
    else:
        root.commit_file(content.temporary, path, stop)
    if content.statistics is not None:
        root.write_atomic(statistics, content.statistics)
    else:
        root.remove(statistics)
    record.save(root)
    return record
