"""One video, encoded with nothing beside it and committed nowhere."""

from __future__ import annotations

import tempfile
from dataclasses import replace

from dyntok.records import PlanEntry
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.observer import RunObserver
from dyntok.store import StoreRoot


def probe_video(job: ShardJob, entry: PlanEntry) -> None:
    """Run the shard function on one video, into a store that is thrown away. Raises as `encode_shards` does."""
    with tempfile.TemporaryDirectory(prefix="dyntok-probe-") as folder:
        alone = replace(job, root=StoreRoot.open(folder), observer=RunObserver(), fail_fast=False)
        encode_shards(alone, [ShardWork(entry.shard, (replace(entry, position=0),))])
