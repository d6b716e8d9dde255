"""What a run tells whoever watches it, and where its seconds go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dyntok.records import PlanEntry, VideoRow


class RunObserver:
    """Told of a run's progress; every method may be called from any thread and does nothing here."""

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

    def shard(self, shard: int, bytes_written: int) -> None:
        """A shard was committed."""


class ForwardingObserver(RunObserver):
    """Passes everything on to another observer; subclasses add what they do themselves."""

    def __init__(self, inner: RunObserver) -> None:
        self._inner = inner

    def model_loaded(self, name: str, device: str) -> None:
        self._inner.model_loaded(name, device)

    def listing(self, videos: int) -> None:
        self._inner.listing(videos)

    def skipped(self, name: str, reason: str) -> None:
        self._inner.skipped(name, reason)

    def waiting(self, reason: str) -> None:
        self._inner.waiting(reason)

    def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
        self._inner.planned(videos, videos_done, shards, shards_done)

    def workers(self, decode_processes: int, devices: int) -> None:
        self._inner.workers(decode_processes, devices)

    def queued(self, batches: int) -> None:
        self._inner.queued(batches)

    def note(self, text: str) -> None:
        self._inner.note(text)

    def begun(self, entry: PlanEntry) -> None:
        self._inner.begun(entry)

    def encoded(self, entry: PlanEntry) -> None:
        self._inner.encoded(entry)

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        self._inner.frames(frames, patches, tokens)

    def video(self, row: VideoRow) -> None:
        self._inner.video(row)

    def shard(self, shard: int, bytes_written: int) -> None:
        self._inner.shard(shard, bytes_written)


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
