"""What the driver and its actors hand to one another."""

from __future__ import annotations

from dataclasses import dataclass, field

from dyntok.config import EncodeConfig
from dyntok.errors import DyntokError
from dyntok.records import VideoRow
from dyntok.run.tell.summaries import ShardSummary
from dyntok.store import DatasetInfo
from dyntok.vision import ModelSpec


@dataclass(frozen=True, slots=True)
class ActorTask:
    """What every actor of a run is told. `url` and `config.model` mean the same on every node; `scratch` is
    that of the driver's `StoreRoot`.

    `torch_threads` are the driver's: on CPUs they may decide how wide float32 products round.
    """

    url: str = field(repr=False)
    scratch: str
    config: EncodeConfig
    spec: ModelSpec
    info: DatasetInfo
    software: dict[str, str]
    torch_threads: int


@dataclass(frozen=True, slots=True)
class Started:
    """An actor is ready. `folder` is on its node and has its marks and output, also after its death.

    `node` is the node's host name, `node_id` its name in Ray, `device` a GPU's name or `cpu`, `kernel_kills` how many
    processes the kernel there had killed by then.
    """

    node: str
    node_id: str
    pid: int
    folder: str
    device: str
    kernel_kills: int = 0


@dataclass(slots=True)
class ActorReport:
    """What happened since the last report; `stages` in seconds. `rows` come with their shard.

    `queued` is how many filled batches wait for the model now.
    """

    frames: int = 0
    patches: int = 0
    tokens: int = 0
    rows: list[tuple[int, VideoRow]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    queued: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.frames or self.rows)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """How a shard ended in an actor: committed, as `summary` says, or handed back unbegun, where that is None.

    Or the actor broke and is of no more use, by an `error` that is no fault of a video. `output` is what the actor
    printed meanwhile, `report` what it had not reported yet. That a probe survived is told so, too.
    """

    shard: int
    summary: ShardSummary | None = None
    error: DyntokError | None = None
    output: str = ""
    report: ActorReport = field(default_factory=ActorReport)
