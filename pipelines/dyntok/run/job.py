"""Everything the shard function needs, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dyntok.run.batch import Encoder
from dyntok.run.progress import RunObserver, StageClock
from dyntok.run.spool import SpoolBudget
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.video import DecodePool


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What is the same for every shard of a run.

    `pool` has `decode_workers` processes and gives frames of the encoder's size; whoever made it closes it.
    `sample_meta` goes into every sample's JSON.
    """

    root: StoreRoot
    info: DatasetInfo
    encoder: Encoder
    device_type: str
    pool: DecodePool
    decode_workers: int
    height: int
    width: int
    batch_size: int
    sample_meta: dict[str, Any]
    fail_fast: bool
    observer: RunObserver
    clock: StageClock
    spool_budget: SpoolBudget
