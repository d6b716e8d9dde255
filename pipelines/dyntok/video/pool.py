"""Decode processes that can be killed: tasks in, frames out, and every task ends as finished or failed."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections import deque
from dataclasses import asdict, dataclass
from multiprocessing import connection as mp_connection
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.errors import RunError, VideoError
from dyntok.records import SampledFrames, VideoInfo
from dyntok.video.events import DecodeEvent, DecodeTask, Failed, Finished, Frames, Opened
from dyntok.video.ring import FrameRing
from dyntok.video.settings import DecodeSettings
from dyntok.video.worker import WATCHDOG_STATUS
from dyntok.video.zygote import UNKNOWN_STATUS, Zygote

_TRIED_AGAIN = frozenset(("worker_died", "unreadable"))
_NEVER = float("inf")


@dataclass(slots=True)
class _Job:
    """A task on its way, over all its attempts."""

    task: DecodeTask
    attempts: int = 0
    opened: tuple[SampledFrames, VideoInfo] | None = None
    delivered: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    connection: Connection
    ring: FrameRing
    free: int
    job: _Job | None = None
    videos: int = 0
    left_s: float = _NEVER
    deadline: float = _NEVER


class DecodePool:
    """N decode processes. A context manager; used by one thread at a time.

    A process is killed when a video takes longer than its limit (waiting for the consumer does not count), and
    replaced after `recycle_after` videos. A video whose process died, or that could not be read, is tried again, up
    to `max_attempts` times in all; the consumer sees nothing of it: what it has got is not sent again. `queue_ahead`
    tasks may wait beyond those that are being decoded.
    """

    def __init__(
        self,
        settings: DecodeSettings,
        *,
        workers: int,
        recycle_after: int = 200,
        max_attempts: int = 2,
        queue_ahead: int = 0,
    ) -> None:
        if workers < 1 or recycle_after < 1 or max_attempts < 1 or queue_ahead < 0:
            raise ValueError("a pool has at least one worker, one video and one attempt")
        self._settings = settings
        self._size, self._recycle_after = workers, recycle_after
        self._max_attempts, self._queue_ahead = max_attempts, queue_ahead
        self._workers: list[_Worker] = []
        self._pending: deque[_Job] = deque()
        self._events: deque[tuple[DecodeEvent, _Worker | None]] = deque()
        self._held: tuple[_Worker, int] | None = None
        self._in_flight = 0
        self._zygote: Zygote | None = Zygote(settings)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def in_flight(self) -> int:
        """Tasks submitted whose `Finished` or `Failed` has not been returned yet."""
        return self._in_flight

    def can_submit(self) -> bool:
        """Whether a process is free, or the queue has room."""
        busy = sum(worker.job is not None for worker in self._workers)
        return busy + len(self._pending) < self._size + self._queue_ahead

    def submit(self, task: DecodeTask) -> None:
        """Take one more task; it waits if no process is free. Raises RunError if no process can be started."""
        self._release()
        self._in_flight += 1
        self._pending.append(_Job(task))
        self._assign()

    def next_event(self, timeout_s: float | None = None) -> DecodeEvent | None:
        """The next event of any task; None if there was none for `timeout_s`. Events of a task are in order.

        Raises RunError if nothing is in flight, or no process can be started.
        """
        self._release()
        if not self._in_flight:
            raise RunError("there is no video to wait for")
        until = _NEVER if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            self._assign()
            self._wait(until)
            if not self._events and time.monotonic() >= until:
                return None
        event, worker = self._events.popleft()
        if isinstance(event, Frames) and worker is not None:
            self._held = worker, len(event.images)
        if isinstance(event, Finished | Failed):
            self._in_flight -= 1
        return event

    def close(self) -> None:
        """Kill the processes and forget what is in flight."""
        zygote, self._zygote = self._zygote, None
        for worker in self._workers:
            worker.connection.close()
        self._workers.clear()
        self._pending.clear()
        self._events.clear()
        self._held = None
        self._in_flight = 0
        if zygote is not None:
            zygote.close()

    def worker_pids(self) -> list[int]:
        """Process ids of the decode processes that there are now."""
        return [worker.pid for worker in self._workers]

    def _wait(self, until: float) -> None:
        """Read what has come, or wait for it, but not beyond the next deadline."""
        deadline = min([until, *(worker.deadline for worker in self._workers)])
        timeout = None if deadline == _NEVER else max(0.0, deadline - time.monotonic())
        connections = {worker.connection: worker for worker in self._workers}
        for ready in mp_connection.wait(list(connections), timeout):
            self._receive(connections[ready])  # type: ignore[index]
        now = time.monotonic()
        for worker in [w for w in self._workers if w.deadline <= now and not w.connection.poll()]:
            self._fail_overdue(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            message = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._bury(worker)
            return
        job = worker.job
        if job is None:
            raise RunError("a decode process spoke without having been asked")
        kind = message["kind"]
        if kind == "opened":
            self._opened(worker, job, message)
        elif kind == "frames":
            self._frames(worker, job, message)
        elif kind == "finished":
            self._leave(worker)
            self._events.append((Finished(job.task, message["stages"]), None))
        else:
            self._leave(worker)
            self._settle(job, VideoError(message["code"], message["message"], hint=message["hint"]))
            if message["code"] == "memory" and worker in self._workers:
                self._retire(worker)
        self._set_deadline(worker, self._settings.limits.timeout_s - message["active_s"])

    def _opened(self, worker: _Worker, job: _Job, message: dict[str, Any]) -> None:
        opened = worker.ring.read_table(message["count"]), VideoInfo(**message["info"])
        if job.opened is None:
            job.opened = opened
            self._events.append((Opened(job.task, *opened), None))
        elif not _same(job.opened, opened):
            self._retire(worker)
            self._settle(job, VideoError("changed", f"{job.task.id} changed while it was read"))

    def _frames(self, worker: _Worker, job: _Job, message: dict[str, Any]) -> None:
        start, slot, count = message["start"], message["slot"], message["count"]
        if start != job.delivered:
            raise RunError(f"frames of {job.task.id} came out of order")
        job.delivered += count
        worker.free -= count
        images = worker.ring.images[slot : slot + count]
        self._events.append((Frames(job.task, start, images), worker))

    def _leave(self, worker: _Worker) -> None:
        """The worker is free for the next task, or has done enough."""
        worker.job = None
        worker.videos += 1
        if worker.videos >= self._recycle_after:
            self._retire(worker)

    def _settle(self, job: _Job, error: VideoError) -> None:
        """Try once more, or fail for good."""
        if error.code in _TRIED_AGAIN and job.attempts < self._max_attempts:
            self._pending.appendleft(job)
        else:
            self._events.append((Failed(job.task, error, job.attempts), None))

    def _bury(self, worker: _Worker) -> None:
        """A process has gone by itself."""
        job = worker.job
        status = self._retire(worker)
        if job is None:
            return
        if status == WATCHDOG_STATUS:
            self._settle(job, self._timeout(job))
        else:
            self._settle(
                job, VideoError("worker_died", f"{job.task.id}: the decode process died{_how(status)}")
            )

    def _fail_overdue(self, worker: _Worker) -> None:
        job = worker.job
        self._retire(worker)
        if job is not None:
            self._settle(job, self._timeout(job))

    def _timeout(self, job: _Job) -> VideoError:
        seconds = self._settings.limits.timeout_s
        return VideoError(
            "timeout",
            f"{job.task.id}: decoding took longer than {seconds:g} s",
            hint="raise --decode-timeout-s",
        )

    def _retire(self, worker: _Worker) -> int:
        """Kill a process; views of its ring stay valid. Its exit status."""
        self._workers.remove(worker)
        worker.connection.close()
        if self._zygote is None:
            return UNKNOWN_STATUS
        try:
            return self._zygote.kill(worker.pid)
        except RunError:
            # It died with all its children; the next start makes a new one.
            self._zygote.close()
            self._zygote = Zygote(self._settings)
            return UNKNOWN_STATUS

    def _assign(self) -> None:
        while self._pending:
            worker = next((w for w in self._workers if w.job is None), None)
            if worker is not None and worker.connection.poll():
                # An idle process says nothing, so this is its end; the video is not to pay for it.
                self._retire(worker)
                continue
            if worker is None:
                if len(self._workers) >= self._size:
                    return
                worker = self._spawn()
            job = self._pending.popleft()
            job.attempts += 1
            worker.job = job
            self._send(
                worker,
                {"kind": "task", "id": job.task.id, "ref": asdict(job.task.ref), "start": job.delivered},
            )
            self._set_deadline(worker, self._settings.limits.timeout_s)

    def _spawn(self) -> _Worker:
        if self._zygote is None:
            raise RunError("the decode pool is closed")
        settings = self._settings
        try:
            ring = FrameRing.create(settings.height, settings.width, settings.limits.max_sampled_frames)
        except OSError as error:
            raise RunError(f"the buffer of a decode process cannot be made: {error.strerror}") from error
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._zygote.spawn(theirs.fileno(), ring.descriptor)
        except BaseException:
            ours.close()
            raise
        finally:
            ring.close_descriptor()
        worker = _Worker(pid, Connection(ours.detach()), ring, ring.slots)
        self._workers.append(worker)
        return worker

    def _release(self) -> None:
        """Give the slots of the last `Frames` back to the process that filled them."""
        if self._held is None:
            return
        worker, count = self._held
        self._held = None
        if worker in self._workers:
            was_blocked = worker.free == 0
            worker.free += count
            self._send(worker, {"kind": "credit", "count": count})
            if was_blocked:
                self._set_deadline(worker, worker.left_s)

    def _send(self, worker: _Worker, message: dict[str, Any]) -> None:
        try:
            worker.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            # It is dead; the end of its connection is found by the next wait.
            return

    def _set_deadline(self, worker: _Worker, left_s: float) -> None:
        """`left_s` is how long the worker may still be active; while it waits for slots it is not."""
        worker.left_s = left_s
        is_active = worker.job is not None and worker.free > 0
        worker.deadline = time.monotonic() + left_s if is_active else _NEVER


def _same(one: tuple[SampledFrames, VideoInfo], other: tuple[SampledFrames, VideoInfo]) -> bool:
    def equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
        return bool(np.array_equal(a, b))

    frames, others = one[0], other[0]
    times = equal(frames.frame_pts, others.frame_pts)
    return one[1] == other[1] and times and equal(frames.frame_index, others.frame_index)


def _how(status: int) -> str:
    if status < 0:
        return f" ({signal.Signals(-status).name})"
    return "" if status == UNKNOWN_STATUS else f" (exit status {status})"
