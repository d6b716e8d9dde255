"""Everything the shard function needs, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dyntok.config import EncodeConfig
from dyntok.run.settings import decode_workers
from dyntok.run.shard.batch import Encoder
from dyntok.run.shard.spool import SpoolBudget
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.video import DecodePool
from dyntok.vision import VisualEncoder


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What is the same for every shard of a run.

    `pool` has `decode_workers` processes and gives frames of the encoder's size; whoever made it closes it.
    `sample_meta` goes into every sample's JSON.
    """

    root: StoreRoot
    info: DatasetInfo
    encoder: Encoder
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


def shard_job(
    root: StoreRoot,
    info: DatasetInfo,
    config: EncodeConfig,
    encoder: VisualEncoder,
    pool: DecodePool,
    observer: RunObserver,
    clock: StageClock,
) -> ShardJob:
    """Everything the shard function needs."""
    return ShardJob(
        root=root,
        info=info,
        encoder=encoder,
        pool=pool,
        decode_workers=decode_workers(config),
        height=encoder.spec.height,
        width=encoder.spec.width,
        batch_size=config.batch_size,
        sample_meta={
            "model": encoder.spec.fingerprint,
            "space": config.space,
            "sampling": config.sampling_json(),
        },
        fail_fast=config.fail_fast,
        observer=observer,
        clock=clock,
        spool_budget=SpoolBudget(),
    )
