"""The shard function: decode, encode, merge and write overlap, across shard ends too.

Five threads hand work on and own what they hold: this one (the *feeder*) takes frames from the decode processes and
fills batches of one fixed shape; the *device* thread keeps the model supplied with them; the *collect* thread merges
what comes from it and puts videos together; the *write* thread writes shards, and the *commit* thread commits them.
Every executor runs this same function.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import torch

from dyntok.corpus import planned_etag
from dyntok.errors import RunError, VideoError
from dyntok.records import PlanEntry
from dyntok.run.settings import decode_workers
from dyntok.run.shard.channels import POLL_S, Channel, RunState, StoppedError, start_thread
from dyntok.run.shard.collect import CollectLoop
from dyntok.run.shard.device import DeviceLoop
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import (
    BatchPart,
    CollectItem,
    DeviceItem,
    FrameBatch,
    ShardWork,
    VideoEnded,
    VideoFailed,
    VideoOpened,
)
from dyntok.run.shard.model import explain_device_errors
from dyntok.run.shard.order import Lookahead
from dyntok.run.shard.write import WriteLoop
from dyntok.video import DecodeTask, Failed, Finished, Frames, Opened

_NO_MORE = object()
# The same words whatever ran the shard, since they become part of its record.
QUARANTINED = "encoding it killed its process, every time that it was tried alone"


@explain_device_errors()
def encode_shards(job: ShardJob, works: Iterable[ShardWork | None]) -> None:
    """Encode and commit every shard of `works`, in order. The job's observer is told of each step.

    `works` may give None where there is no shard to begin now but one may come; it is asked again soon.

    Raises:
        RunError: the device failed or is full; with `fail_fast`, at the first failed video.
        StoreError: a shard could not be written; what was committed before stays.
    """
    state = RunState()
    # One video a shard must still keep every decode process busy.
    lookahead = Lookahead(decode_workers(job.config) + 1)
    to_device: Channel[DeviceItem] = Channel(state, 8)
    to_collect: Channel[CollectItem] = Channel(state, 8)
    # One is filled, one is merged, and the others are the device's.
    buffers = job.encoder.batches_at_once + 2
    free: Channel[FrameBatch] = Channel(state, buffers)
    writer = WriteLoop(job, state, lookahead)
    device = DeviceLoop(job, to_device, to_collect)
    collect = CollectLoop(job, to_collect, free, writer.channel)
    pin = job.encoder.device.type == "cuda"
    shape = (job.config.batch_size, job.encoder.spec.height, job.encoder.spec.width, 3)
    for _ in range(buffers):
        free.put(FrameBatch(torch.zeros(shape, dtype=torch.uint8, pin_memory=pin)))

    bodies = {"device": device.run, "collect": collect.run, "write": writer.run, "commit": writer.commit}
    threads: list[threading.Thread] = []
    try:
        for name, body in bodies.items():
            threads.append(start_thread(name, state, body))
        _Feeder(job, state, lookahead, to_device, free).run(iter(works))
        while any(thread.is_alive() for thread in threads):
            threads[-1].join(POLL_S)
            state.check()
    except StoppedError:
        pass
    finally:
        state.stop.set()
        for thread in threads:
            thread.join()
        collect.close()
        writer.close()
    if state.error is not None:
        raise state.error


class _Feeder:
    def __init__(
        self,
        job: ShardJob,
        state: RunState,
        lookahead: Lookahead,
        to_device: Channel[DeviceItem],
        free: Channel[FrameBatch],
    ) -> None:
        self._job, self._pool, self._state, self._lookahead = job, job.pool, state, lookahead
        self._to_device, self._free = to_device, free
        self._entries: dict[int, PlanEntry] = {}
        self._next_token = 0
        self._waiting: list[tuple[int, PlanEntry]] = []
        self._quarantined: frozenset[int] = frozenset()
        self._batch: FrameBatch | None = None
        self._after_batch: list[VideoEnded | VideoFailed] = []

    def run(self, works: Iterator[ShardWork | None]) -> None:
        exhausted = False
        while True:
            self._state.check()
            exhausted = self._submit(works) or exhausted
            if self._pool.in_flight:
                self._handle(self._pool.next_event(POLL_S))
                continue
            self._flush()
            if exhausted and not self._waiting:
                break
            self._lookahead.wait(POLL_S)
        self._to_device.put(None)

    def _submit(self, works: Iterator[ShardWork | None]) -> bool:
        """Hand videos to free decode processes. True when there are no more shards to begin."""
        while self._pool.can_submit():
            if not self._waiting:
                if not self._lookahead.try_open():
                    return False
                work = next(works, _NO_MORE)
                if not isinstance(work, ShardWork):
                    self._lookahead.committed()
                    return work is _NO_MORE
                self._begin(work)
                if not self._waiting:
                    continue
            token, entry = self._waiting.pop()
            if entry.position in self._quarantined:
                self._fail(token, entry, VideoError("worker_died", f"{entry.source}: {QUARANTINED}"))
                continue
            if entry.size_bytes is None:
                self._fail(token, entry, VideoError("not_found", f"{entry.source} cannot be read"))
                continue
            self._entries[token] = entry
            self._job.observer.begun(entry)
            etag = planned_etag(entry.fingerprint)
            self._pool.submit(DecodeTask(token, entry.id, entry.ref, entry.size_bytes, etag))
        return False

    def _begin(self, work: ShardWork) -> None:
        self._to_device.put(work)
        self._waiting = [(self._next_token + n, entry) for n, entry in enumerate(work.entries)][::-1]
        self._quarantined = work.quarantined
        self._next_token += len(work.entries)

    def _handle(self, event: Opened | Frames | Finished | Failed | None) -> None:
        if event is None:
            return
        token = event.task.token
        if isinstance(event, Frames):
            self._fill(token, event)
        elif isinstance(event, Opened):
            self._to_device.put(VideoOpened(token, self._entries[token], event.frames, event.info))
        elif isinstance(event, Finished):
            self._job.clock.add(event.stages)
            self._end(VideoEnded(token))
            del self._entries[token]
        else:
            self._fail(token, self._entries.pop(token), event.error)

    def _fail(self, token: int, entry: PlanEntry, error: VideoError) -> None:
        if self._job.config.fail_fast:
            raise RunError(
                f"{entry.source}: {error.code}: {error.message}",
                hint="run the same command without --fail-fast to record failures and go on",
            )
        self._end(VideoFailed(token, entry, error))

    def _end(self, message: VideoEnded | VideoFailed) -> None:
        """Send `message` after the frames that are already in the batch; some may be the video's."""
        if self._batch is None:
            self._to_device.put(message)
        else:
            self._after_batch.append(message)

    def _fill(self, token: int, event: Frames) -> None:
        done = 0
        while done < len(event.images):
            if self._batch is None:
                self._batch = self._free.get()
            batch = self._batch
            count = min(len(event.images) - done, len(batch.images) - batch.frames)
            source = torch.from_numpy(event.images[done : done + count])
            batch.images[batch.frames : batch.frames + count].copy_(source)
            batch.parts.append(BatchPart(token, event.start + done, batch.frames, count))
            batch.frames += count
            done += count
            if batch.frames == len(batch.images):
                self._flush()

    def _flush(self) -> None:
        """Send the batch as it is, black frames behind, and what has to come after it."""
        if self._batch is None:
            return
        self._batch.images[self._batch.frames :].zero_()
        self._to_device.put(self._batch)
        self._batch = None
        for message in self._after_batch:
            self._to_device.put(message)
        self._after_batch.clear()
