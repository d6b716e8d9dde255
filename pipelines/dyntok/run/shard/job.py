"""Everything the shard function needs, in one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dyntok.config import EncodeConfig
from dyntok.run.shard.spool import SpoolBudget
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.video import DecodePool
from dyntok.vision import VisualEncoder


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What is the same for every shard of a run. `pool` gives frames of the encoder's size; who made it closes it."""

    root: StoreRoot
    info: DatasetInfo
    config: EncodeConfig
    encoder: VisualEncoder
    pool: DecodePool
    observer: RunObserver
    clock: StageClock
    spool_budget: SpoolBudget = field(default_factory=SpoolBudget)

    @property
    def sample_meta(self) -> dict[str, Any]:
        """What goes into every sample's JSON."""
        return {
            "model": self.encoder.spec.fingerprint,
            "space": self.config.space,
            "sampling": self.config.sampling_json(),
        }
