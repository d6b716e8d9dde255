"""What the calls of this package return; each turns into JSON types."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dyntok.records import VideoRow
from dyntok.urls import redact


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """The outcome of a run.

    `videos` counts the inputs of the plan, `done` and `failed` how they ended in all runs so far, `already` those
    that earlier runs had finished. `failures` holds at most `MAX_FAILURES` rows. `stage_seconds`: decode stages in
    CPU seconds of the decode processes, the others in wall seconds of their thread.
    """

    out: str
    videos: int
    done: int
    failed: int
    already: int
    shards: int
    frames: int
    patches: int
    tokens: dict[str, int]
    bytes: int
    seconds: float
    stage_seconds: dict[str, float]
    failures: tuple[VideoRow, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", redact(self.out))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
class StatusReport:
    """How far a store is. `state` is one of `empty`, `planned`, `incomplete`, `complete`; `running` says that a
    process holds the store's lock now."""

    out: str
    state: str
    running: bool
    videos: int
    done: int
    failed: int
    pending: int
    shards: int
    shards_done: int
    frames: int
    tokens: dict[str, int]
    bytes: int
    error_classes: dict[str, int]
    failures: tuple[VideoRow, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", redact(self.out))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


MAX_FAILURES = 1000
