"""How far one run is, as it writes it down every few seconds (`logs/<run>.json`) and `status` reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dyntok.run.array import ArrayJob
from dyntok.run.tell.rates import bottleneck, busy_shares

RUNNING, ENDED, STOPPED = "running", "ended", "stopped"
# After so many missed writes, a run is taken to be dead where no lock tells.
MISSED_WRITES = 4


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened in the last `seconds`: videos that ended, frames, and seconds by stage."""

    seconds: float = 0.0
    videos: int = 0
    frames: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """Counts of one run; `videos` and `shards` are its share of the plan, `_before` what earlier runs had ended.

    `started` and `updated`: seconds since 1970. `tokens`: at the stored threshold. `nbytes`: of committed shards.
    `failures`: failed videos by error class. `queued`: filled batches that waited when a device took its last one.
    """

    run: str
    state: str
    host: str
    pid: int
    job_index: int | None
    num_jobs: int | None
    started: float
    updated: float
    every_s: float
    videos: int = 0
    videos_before: int = 0
    done: int = 0
    failed: int = 0
    shards: int = 0
    shards_before: int = 0
    shards_done: int = 0
    frames: int = 0
    patches: int = 0
    tokens: int = 0
    nbytes: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    decode_processes: int = 0
    devices: int = 0
    queued: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    recent: Recent = field(default_factory=Recent)
    reason: str = ""

    @property
    def job(self) -> ArrayJob | None:
        """Which job of an array it is."""
        if self.job_index is None or self.num_jobs is None:
            return None
        return ArrayJob(self.job_index, self.num_jobs)

    @property
    def pending(self) -> int:
        """Videos of its share that have not ended."""
        return max(0, self.videos - self.videos_before - self.done - self.failed)

    @property
    def videos_per_second(self) -> float:
        """Lately; over the whole run where nothing ended lately."""
        return self._pace(self.recent.videos, self.done + self.failed)

    @property
    def frames_per_second(self) -> float:
        """Lately; over the whole run where no frame came lately."""
        return self._pace(self.recent.frames, self.frames)

    def _pace(self, lately: int, in_all: int) -> float:
        if lately and self.recent.seconds > 0:
            return lately / self.recent.seconds
        elapsed = self.updated - self.started
        return in_all / elapsed if elapsed > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Until its share is encoded, at that pace; None before the first video ended."""
        rate = self.videos_per_second
        return self.pending / rate if rate > 0 else None

    @property
    def recent_stages(self) -> Mapping[str, float]:
        """Seconds by stage lately, or over the run where no device did anything lately."""
        return self.recent.stage_seconds if busy_shares(self.recent.stage_seconds) else self.stage_seconds

    @property
    def bottleneck(self) -> str | None:
        """What the run waits for: `decode`, `device` or `write`."""
        return bottleneck(self.recent_stages)

    def seems_alive(self, now: float | None = None) -> bool:
        """Whether it was written lately and had not ended; for stores without locks. Clocks may differ a little."""
        age = (time.time() if now is None else now) - self.updated
        return self.state == RUNNING and age < MISSED_WRITES * self.every_s + 30.0

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> RunSnapshot | None:
        """None for what is no snapshot, or one of a dyntok with other fields."""
        try:
            content: dict[str, Any] = json.loads(data)
            recent = Recent(**content.pop("recent"))
            snapshot = cls(recent=recent, **content)
            _ = snapshot.job
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        numbers = [getattr(snapshot, item.name) for item in fields(cls) if item.type in ("int", "float")]
        return snapshot if all(isinstance(number, (int, float)) for number in numbers) else None
