"""The device thread: keeps the device supplied, and passes on what it makes of the batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from dyntok.run.shard.batch import own_stream
from dyntok.run.shard.channels import Channel
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import CollectItem, DeviceItem, EncodedBatch, FrameBatch
from dyntok.vision import Work


class DeviceLoop:
    """Hands batches to the device, the next one before the last is done where the device takes several.

    Everything else passes through in its place among the batches.
    """

    def __init__(self, job: ShardJob, inbox: Channel[DeviceItem], outbox: Channel[CollectItem]) -> None:
        self._job, self._inbox, self._outbox = job, inbox, outbox
        self._device = DeviceTime()

    def run(self) -> None:
        with own_stream(self._job.encoder.device):
            while (item := self._next()) is not None:
                self._put(self._hand_over(item) if isinstance(item, FrameBatch) else item)
            self._put(None)
            with self._job.clock.measure("model"):
                self._device.leave_at_most(0)

    def _next(self) -> DeviceItem:
        with self._unless_busy("wait"):
            return self._inbox.get()

    def _put(self, item: CollectItem) -> None:
        with self._unless_busy("blocked"):
            self._outbox.put(item)

    def _hand_over(self, batch: FrameBatch) -> EncodedBatch:
        job = self._job
        job.observer.queued(self._inbox.waiting(FrameBatch))
        with job.clock.measure("model"):
            self._device.leave_at_most(job.encoder.batches_at_once - 1)
            # Frames do not share arithmetic on CPUs, so padding would only cost time there.
            images = batch.images if job.encoder.fixed_batches else batch.images[: batch.frames]
            began = time.perf_counter()
            encoded = job.encoder.encode(images)
            self._device.took(began, encoded.work)
        return EncodedBatch(batch, encoded)

    @contextmanager
    def _unless_busy(self, stage: str) -> Iterator[None]:
        """Time of the block, as far as the device had nothing to do meanwhile; else it is the model's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            busy = max(0.0, self._device.busy_until(end) - start)
            self._job.clock.add({"model": busy, stage: end - start - busy})


class DeviceTime:
    """When a device was at work, from when it was given its batches and how long each took it."""

    def __init__(self) -> None:
        self._running: deque[tuple[float, Work]] = deque()
        self._free_at = 0.0

    def took(self, at: float, work: Work) -> None:
        """The device was given `work` at that time (of `time.perf_counter`)."""
        self._running.append((at, work))

    def leave_at_most(self, count: int) -> None:
        """Wait until it has no more than so many batches."""
        while len(self._running) > count:
            self._running[0][1].wait()
            self._settle()

    def busy_until(self, now: float) -> float:
        """Up to when, and no later than `now`, it had something to do without a break."""
        while self._running and self._running[0][1].is_done:
            self._settle()
        return now if self._running else min(now, self._free_at)

    def _settle(self) -> None:
        at, work = self._running.popleft()
        self._free_at = max(self._free_at, at) + work.seconds
