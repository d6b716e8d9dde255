"""What the calls of this package return; each turns into JSON types."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dyntok.records import VideoRow
from dyntok.urls import redact

MAX_FAILURES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What became of videos, each as its latest attempt ended.

    `videos` counts the inputs of the plan, `done` and `failed` how they ended in all runs so far. `tokens` are by
    threshold, `bytes` those of the shards; `failures` holds at most `MAX_FAILURES` rows.
    """

    videos: int = 0
    done: int = 0
    failed: int = 0
    frames: int = 0
    patches: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    failures: tuple[VideoRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTotals(Totals):
    """`Totals` of a store, or of a share of it: also shards that are committed, and failed videos by error class."""

    shards_done: int = 0
    error_classes: dict[str, int] = field(default_factory=dict)

    def of(self, kind: type[Totals]) -> dict[str, Any]:
        """The fields of `Totals` or `StoreTotals`, for a report that begins with them."""
        return {item.name: getattr(self, item.name) for item in fields(kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport(Totals):
    """The outcome of a run.

    `already` counts the videos that earlier runs had finished. `stage_seconds`: decode stages in CPU seconds of the
    decode processes, the others in wall seconds of their thread.

    `job_index` and `num_jobs`: which job of an array it was; then all counts are of its share, where a video that the
    plan tries again in a later shard does not count.
    """

    out: str
    already: int
    shards: int
    seconds: float
    stage_seconds: dict[str, float]
    job_index: int | None = None
    num_jobs: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", redact(self.out))


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What `encode` would do. Tokens and bytes by threshold are estimates from published ratios.

    `frames` is exact with uniform sampling and estimated from `probed` videos with `fps`.
    """

    videos: int
    unreadable: int
    input_bytes: int
    shards: int
    frames: int
    patches: int
    probed: int
    tokens: dict[str, int]
    bytes_by_threshold: dict[str, int]
    model: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard of the plan. `state` is `done` or `pending`; `job` is whose it is in the latest job array, if there
    was one. `failed` counts its record's failed videos, also those that a later shard has."""

    shard: int
    state: str
    job: int | None
    videos: int
    done: int
    failed: int
    bytes: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job of the latest job array. `running`: it works now; `host` and `pid` are of its latest run, `eta_seconds`
    is until its share is encoded. `pending` videos count as in `StatusReport`."""

    index: int
    running: bool
    shards: int
    shards_done: int
    videos: int
    pending: int
    host: str = ""
    pid: int = 0
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Seconds of one stage, and frames a second of each process or thread that works in it."""

    stage: str
    seconds: float
    frames_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport(StoreTotals):
    """How far a store is.

    `state` is one of `empty` (nothing is planned), `planned`, `incomplete`, `encoded` (every shard is done, the index
    and the manifest are not written), `complete`. `running`: a process writes now. `shards_failed` shards hold a failed
    video.

    The pace is that of the runs that work now, else of the latest: `stages`, `busy` and `bottleneck` as
    `dyntok.run.tell.rates` has them. `eta_seconds` is until the last of the running ones is through; `idle_pending`
    videos wait in shards that no running job has. `shard_list` is filled when asked for.
    """

    out: str
    state: str
    running: bool
    pending: int = 0
    shards: int = 0
    shards_pending: int = 0
    shards_failed: int = 0
    num_jobs: int | None = None
    jobs: tuple[JobStatus, ...] = ()
    videos_per_second: float = 0.0
    frames_per_second: float = 0.0
    eta_seconds: float | None = None
    idle_pending: int = 0
    bottleneck: str | None = None
    busy: dict[str, float] = field(default_factory=dict)
    stages: tuple[StageStatus, ...] = ()
    shard_list: tuple[ShardStatus, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", redact(self.out))
