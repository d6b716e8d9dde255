"""What a run tells whoever watches it, and where its seconds go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dyntok.records import PlanEntry, VideoRow
from dyntok.run.tell.summaries import ShardSummary


class RunObserver:
    """Told of a run's progress. Every method may be called from any thread; none of them does anything by itself."""

    def model_loaded(self, name: str, device: str) -> None:
        """The encoder is ready."""

    def listing(self, videos: int) -> None:
        """So many inputs were listed and fingerprinted up to now."""

    def skipped(self, name: str, reason: str) -> None:
        """A file of a folder was passed over: `hidden`, `suffix`, `special` (no regular file) or `loop`."""

    def waiting(self, reason: str) -> None:
        """The run cannot go on before another process has done something."""

    def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
        """The plan is frozen; what earlier runs did is counted as done. A job of an array counts its own share."""

    def workers(self, decode_processes: int, devices: int) -> None:
        """So many decode processes and devices work now; told anew when their number changes."""

    def queued(self, batches: int) -> None:
        """A device took a batch, and so many more were waiting for it."""

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        """A batch of so many frames went through the model."""

    def note(self, text: str) -> None:
        """Something about the run that its operator should read."""

    def begun(self, entry: PlanEntry) -> None:
        """A video goes to a decode process."""

    def encoded(self, entry: PlanEntry) -> None:
        """A video has left the model, or failed before; it waits for its turn to be written."""

    def video(self, row: VideoRow) -> None:
        """A video was written to its shard, or failed."""

    def committed(self, summary: ShardSummary) -> None:
        """A shard was committed, and its record says this; tells `shard` of it, unless it is overridden."""
        self.shard(summary.shard, summary.nbytes)

    def shard(self, shard: int, bytes_written: int) -> None:
        """A shard was committed."""


class Observers(RunObserver):
    """Tells several observers of everything, each in its turn; where one raises, the later ones are not told."""

    def __init__(self, *told: RunObserver) -> None:
        self._told = told


def _telling_all(name: str) -> Callable[..., None]:
    def tell(self: Observers, *args: Any, **kwargs: Any) -> None:
        for observer in self._told:
            getattr(observer, name)(*args, **kwargs)

    return tell


# Made of what there is to hear, so that nothing is forgotten.
for _name in vars(RunObserver):
    if not _name.startswith("_"):
        setattr(Observers, _name, _telling_all(_name))


class StageClock:
    """Seconds by stage, added up over threads and processes.

    `index`, `decode` and `resize` are CPU seconds of decode processes; `plan`, `load` and `finish` wall seconds of the
    run. A device is always in one of `model`, `wait` (for frames) and `blocked` (by what comes behind it); beside it
    work `merge` and `collect` in one thread, `write` in another and `commit` in a third.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stages: Mapping[str, float]) -> None:
        with self._lock:
            for stage, seconds in stages.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Wall seconds of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def seconds(self) -> dict[str, float]:
        with self._lock:
            return dict(self._seconds)
