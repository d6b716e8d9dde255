"""The statistics of a store, read in one pass over its index and one over what its shards counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dyntok.errors import DamageError
from dyntok.records import FileDigest
from dyntok.report.columns import Breakdown, break_down
from dyntok.stats import MapStatistics, VideoStatistics
from dyntok.stats.describe import breakdown_json, describe
from dyntok.stats.videos import columns_read
from dyntok.store import (
    DatasetInfo,
    Manifest,
    StoreIndex,
    StoreRoot,
    completed_shards,
    gather_statistics,
    load_statistics,
    map_shape,
    open_shard_reader,
)
from dyntok.store.completion import iter_files
from dyntok.store.names import shard_of_statistics

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What is known of a store. `recounted`: shards whose similarity maps were read again."""

    root: StoreRoot
    info: DatasetInfo
    videos: VideoStatistics
    maps: MapStatistics
    by: Breakdown | None
    shards: int
    recounted: int

    def to_json(self) -> dict[str, Any]:
        """The document that docs/statistics.md describes."""
        grid = self.info.grid
        by = self.by
        return {
            "store": self.root.url,
            **describe(self.videos, self.maps),
            "grid": {"rows": grid.rows, "cols": grid.cols},
            "thresholds": list(self.info.thresholds),
            "shards": self.shards,
            "recounted": self.recounted,
            "by": None if by is None else breakdown_json(by.column, by.totals, self.videos.names),
        }


def gather(
    url: str, *, by: str | None = None, recompute: bool = False, on_progress: Progress | None = None
) -> StoreStatistics:
    """Statistics of a complete store. Memory does not grow with the number of videos.

    Args:
        by: also sums for each value of this column of the manifest.
        recompute: count anew from the similarity maps, also where the shards' counts are stored.
        on_progress: called with (shards done, shards in all).

    Raises:
        StoreError: there is no store, or its run is not complete.
        UsageError: no video has the column `by`.
        DamageError: index and statistics contradict each other, or are not what was written.
    """
    root = StoreRoot.open(url)
    info = DatasetInfo.load(root)
    index = StoreIndex.open(root)
    videos = VideoStatistics.empty(index.thresholds)
    for batch in index.batches(columns_read(index.thresholds)):
        videos = videos + VideoStatistics.of(batch, index.thresholds)
    maps, shards, recounted = _maps(root, info, recompute, on_progress or (lambda done, all_shards: None))
    if (maps.videos, maps.frames) != (videos.totals.done, videos.totals.frames):
        raise DamageError(
            f"the shards of {root.url} hold {maps.videos} videos with {maps.frames} frames, its index names "
            f"{videos.totals.done} with {videos.totals.frames}",
            hint="`dyntok verify` lists all damage",
        )
    breakdown = None if by is None else break_down(root, index, by)
    return StoreStatistics(root, info, videos, maps, breakdown, shards, recounted)


def _maps(root: StoreRoot, info: DatasetInfo, recompute: bool, on_progress: Progress) -> tuple[MapStatistics, int, int]:
    """Counts of all shards, how many shards there are, and of how many the maps were read."""
    total = MapStatistics.empty(map_shape(info))
    shards = completed_shards(root)
    stored = {} if recompute else dict(_stored(root))
    recounted = 0
    for number, shard in enumerate(shards):
        on_progress(number, len(shards))
        if shard in stored:
            part = load_statistics(root, info, shard, stored[shard])
        else:
            part = gather_statistics(open_shard_reader(root, info, shard), info)
            recounted += 1
        total = total + part
    on_progress(len(shards), len(shards))
    return total, len(shards), recounted


def _stored(root: StoreRoot) -> Iterator[tuple[int, FileDigest]]:
    """Shards that have statistics, with their digests: from the manifest, or from the records if there is none."""
    manifest = Manifest.load(root)
    files = manifest.files if manifest is not None else chain.from_iterable(some for _, some in iter_files(root))
    for file in files:
        if (shard := shard_of_statistics(file.path)) is not None:
            yield shard, file
