"""The one module that knows which shard formats there are. Each is imported when it is used."""

from __future__ import annotations

from dyntok.errors import StoreError
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot
from dyntok.store.writer import ShardWriter


def open_shard_reader(
    root: StoreRoot, info: DatasetInfo, shard: int, record: CompletionRecord | None = None
) -> ShardReader:
    """Reader of a committed shard. Without `record`, it is loaded.

    Raises:
        StoreError: the shard is not committed.
        DamageError: a file that the record names is missing or has another size.
    """
    if record is None:
        record = CompletionRecord.load(root, shard)
        if record is None:
            raise StoreError(
                f"shard {shard} of {root.url} has no valid completion record",
                hint="run the same `dyntok encode` command again to finish the store",
            )
    if info.shard_format == "zarr":
        from dyntok.store.zarr.reader import ZarrShardReader

        return ZarrShardReader(root, info, shard, record)
    from dyntok.store.tar.reader import TarShardReader

    return TarShardReader(root, info, shard, record)


def open_shard_writer(root: StoreRoot, info: DatasetInfo, shard: int, *, statistics: bool = True) -> ShardWriter:
    """Writer for a shard in the store's format. Temporary files go to `root.scratch_dir()`.

    `statistics`: also gather them; only what is to equal a shard that has none goes without.
    """
    if info.shard_format == "zarr":
        from dyntok.store.zarr.writer import ZarrShardWriter

        return ZarrShardWriter(root, info, shard, statistics=statistics)
    from dyntok.store.tar.writer import TarShardWriter

    return TarShardWriter(root, info, shard, statistics=statistics)
