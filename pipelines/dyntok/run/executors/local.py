"""In this process."""

from __future__ import annotations

from collections.abc import Iterable

from dyntok.run.job import ShardJob
from dyntok.run.messages import ShardWork
from dyntok.run.pipeline import encode_shards


def run(job: ShardJob, works: Iterable[ShardWork]) -> None:
    """Encode every shard of `works`. Raises as `encode_shards` does."""
    encode_shards(job, works)
