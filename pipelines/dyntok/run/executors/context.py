"""What an executor is given, and the parts that both need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dyntok.config import EncodeConfig
from dyntok.corpus import FrozenPlan
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.run.tell.runlog import RunLog
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import LOG_FOLDER, shard_name
from dyntok.vision import ModelSpec

SHARD_LOG_FOLDER = f"{LOG_FOLDER}/shards"


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: its store, settings and plan, and who is told of it."""

    root: StoreRoot
    config: EncodeConfig
    spec: ModelSpec
    info: DatasetInfo
    plan: FrozenPlan
    observer: RunObserver
    clock: StageClock
    log: RunLog

    def load(self, shard: int) -> ShardWork:
        """A shard's rows of the plan."""
        return ShardWork(shard, tuple(self.plan.shard(shard)))

    def shard_log(self, shard: int, heading: str, text: str) -> None:
        """Append to `logs/shards/shard-NNNNNN.log`. Raises StoreError."""
        path = f"{SHARD_LOG_FOLDER}/{shard_name(shard)}.log"
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        entry = f"--- {stamp} {heading}\n{text.rstrip()}\n".encode("utf-8", "replace")
        # A new file, since the one that is there may be another user's.
        self.root.write_atomic(path, (self.root.read_if_there(path) or b"") + entry)


def absolute_config(config: EncodeConfig) -> EncodeConfig:
    """The configuration with a model folder's path, if it is one, whatever the working directory."""
    if config.model == "demo" or not Path(config.model).exists():
        return config
    return config.model_copy(update={"model": str(Path(config.model).absolute())})
