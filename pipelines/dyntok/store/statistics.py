"""`shards/shard-000000.stats`: counts over the similarity maps of a shard, and where they come from."""

from __future__ import annotations

from typing import Any

from dyntok.errors import DamageError
from dyntok.records import FileDigest
from dyntok.stats import MapShape, MapStatistics
from dyntok.store.dataset import DatasetInfo, unsign_versioned
from dyntok.store.names import FORMAT_VERSION
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_bytes, sign

MAX_STATISTICS_BYTES = 2**28


def map_shape(info: DatasetInfo) -> MapShape:
    """The shape of a store's statistics."""
    return MapShape(info.grid.rows, info.grid.cols, info.thresholds)


def statistics_bytes(statistics: MapStatistics, shard: int) -> bytes:
    """The content of a shard's statistics file; the same videos give the same bytes."""
    return sign({"format_version": FORMAT_VERSION, "shard": shard, **statistics.to_json()})


def load_statistics(root: StoreRoot, info: DatasetInfo, shard: int, file: FileDigest) -> MapStatistics:
    """Statistics of a shard, from the file that its record or the manifest names.

    Raises DamageError if it has another digest, StoreError where reading fails.
    """
    where = root.where(file.path)
    data = root.read_bytes(file.path, MAX_STATISTICS_BYTES)
    if digest_bytes(file.path, data) != file:
        raise DamageError(
            f"{where} is damaged: its sha256 is not the recorded one",
            hint=f"`dyntok verify {root.url} --repair` makes it anew",
        )
    content: dict[str, Any] = unsign_versioned(data, where)
    try:
        if content.pop("shard") != shard or content.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another shard")
        return MapStatistics.from_json(content, map_shape(info))
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(
            f"{where} holds no statistics of this store: {error}",
            hint="`dyntok stats --recompute` counts anew; `dyntok verify` lists all damage",
        ) from error


def gather_statistics(reader: ShardReader, info: DatasetInfo) -> MapStatistics:
    """Statistics of a shard from its similarity maps; one video's map in memory at a time."""
    total = MapStatistics.empty(map_shape(info))
    for row in range(len(reader)):
        total = total + MapStatistics.of(reader.head(row).similarity, total.shape)
    return total
