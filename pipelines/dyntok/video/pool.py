"""Decode processes that can be killed: tasks in, frames out, and every task ends as finished or failed."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from dataclasses import asdict
from multiprocessing import connection as mp_connection
from multiprocessing.connection import Connection
from typing import Any

from dyntok.errors import RunError, VideoError
from dyntok.records import VideoInfo
from dyntok.video.events import DecodeEvent, DecodeTask, Failed, Finished, Frames, Opened
from dyntok.video.jobs import NEVER, Job, Worker, how_it_ended, same_video, was_killed
from dyntok.video.ring import FrameRing
from dyntok.video.settings import DecodeSettings
from dyntok.video.sources import is_remote
from dyntok.video.staging import Staging
from dyntok.video.worker import WATCHDOG_STATUS
from dyntok.video.zygote import UNKNOWN_STATUS, Zygote

_TRIED_AGAIN = frozenset(("worker_died", "unreadable"))
# A kill says little about the video, but one that brings the kernel's killer every time has to end.
_MOST_KILLS = 5
_FEWEST_FETCHES, _MOST_FETCHES = 4, 32


class DecodePool:
    """N decode processes. A context manager; used by one thread at a time.

    A process is killed when a video takes longer than its limit (waiting for the consumer does not count), and
    replaced after `recycle_after` videos. A video whose process died, or that could not be read, is tried again, up
    to `max_attempts` times in all; the consumer sees nothing of it: what it has got is not sent again. Attempts whose
    process was killed from outside do not count towards that, up to the fifth. `queue_ahead` tasks may wait beyond
    those that are being decoded.

    Remote videos are fetched while others are decoded, by threads of this process; their time does not count as
    decoding. Some more of them are taken than there are processes.
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
        self._workers: list[Worker] = []
        self._pending: deque[Job] = deque()
        self._staging: Staging | None = None
        self._staged: dict[int, Job] = {}
        self._fetches = max(_FEWEST_FETCHES, min(_MOST_FETCHES, 2 * workers))
        self._events: deque[tuple[DecodeEvent, Worker | None]] = deque()
        self._held: tuple[Worker, int] | None = None
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
        if busy + len(self._pending) >= self._size + self._queue_ahead:
            return False
        return self._staging is None or self._staging.pending < self._fetches

    def submit(self, task: DecodeTask) -> None:
        """Take one more task; it waits if no process is free. Raises RunError if no process can be started."""
        self._release()
        self._in_flight += 1
        job = Job(task, task.ref)
        if not self._stage(job):
            self._pending.append(job)
        self._assign()

    def next_event(self, timeout_s: float | None = None) -> DecodeEvent | None:
        """The next event of any task; None if there was none for `timeout_s`. Events of a task are in order.

        Raises RunError if nothing is in flight, no process can be started, or a thread that fetches videos died.
        """
        self._release()
        if not self._in_flight:
            raise RunError("there is no video to wait for")
        until = NEVER if timeout_s is None else time.monotonic() + timeout_s
        self._take_staged()
        while not self._events:
            self._assign()
            self._wait(until)
            self._take_staged()
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
        staging, self._staging = self._staging, None
        for worker in self._workers:
            worker.connection.close()
        self._workers.clear()
        self._pending.clear()
        self._events.clear()
        self._held = None
        self._in_flight = 0
        self._staged.clear()
        if zygote is not None:
            zygote.close()
        if staging is not None:
            staging.close()

    def _wait(self, until: float) -> None:
        """Read what has come, or wait for it, but not beyond the next deadline."""
        deadline = min([until, *(worker.deadline for worker in self._workers)])
        timeout = None if deadline == NEVER else max(0.0, deadline - time.monotonic())
        connections = {worker.connection: worker for worker in self._workers}
        sources: list[Any] = list(connections)
        if self._staging is not None:
            sources.append(self._staging)
        for ready in mp_connection.wait(sources, timeout):
            if ready in connections:
                self._receive(connections[ready])
        now = time.monotonic()
        for worker in [w for w in self._workers if w.deadline <= now and not w.connection.poll()]:
            self._bury(worker, overdue=True)

    def _receive(self, worker: Worker) -> None:
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
            self._end(job, Finished(job.task, message["stages"]))
        else:
            self._leave(worker)
            self._settle(job, VideoError(message["code"], message["message"], hint=message["hint"]))
            if message["code"] == "memory" and worker in self._workers:
                self._retire(worker)
        self._set_deadline(worker, self._settings.limits.timeout_s - message["active_s"])

    def _opened(self, worker: Worker, job: Job, message: dict[str, Any]) -> None:
        opened = worker.ring.read_table(message["count"]), VideoInfo(**message["info"])
        if job.opened is None:
            job.opened = opened
            self._events.append((Opened(job.task, *opened), None))
        elif not same_video(job.opened, opened):
            self._retire(worker)
            self._settle(job, VideoError("changed", f"{job.task.id} changed while it was read"))

    def _frames(self, worker: Worker, job: Job, message: dict[str, Any]) -> None:
        start, slot, count = message["start"], message["slot"], message["count"]
        if start != job.delivered:
            raise RunError(f"frames of {job.task.id} came out of order")
        job.delivered += count
        worker.free -= count
        images = worker.ring.images[slot : slot + count]
        self._events.append((Frames(job.task, start, images), worker))

    def _leave(self, worker: Worker) -> None:
        """The worker is free for the next task, or has done enough."""
        worker.job = None
        worker.videos += 1
        if worker.videos >= self._recycle_after:
            self._retire(worker)

    def _settle(self, job: Job, error: VideoError) -> None:
        """Try once more, or fail for good."""
        left = job.attempts - job.kills < self._max_attempts and job.kills < _MOST_KILLS
        if error.code in _TRIED_AGAIN and left:
            self._pending.appendleft(job)
        else:
            self._end(job, Failed(job.task, error, job.attempts))

    def _end(self, job: Job, event: Finished | Failed) -> None:
        if self._staging is not None:
            self._staging.release(job.task.token)
        self._events.append((event, None))

    def _stage(self, job: Job) -> bool:
        """Have a remote video fetched. False for one that is to be read where it is."""
        if not is_remote(job.task.ref):
            return False
        try:
            if self._staging is None:
                self._staging = Staging(self._settings.input_cache_bytes, self._fetches)
            self._staging.add(job.task)
        except (OSError, RuntimeError):  # no room for temporary files at all, or no thread to be had
            return False
        self._staged[job.task.token] = job
        return True

    def _take_staged(self) -> None:
        """Videos that have been fetched wait for a process now."""
        for staged in self._staging.ready() if self._staging is not None else ():
            job = self._staged.pop(staged.token)
            job.ref = staged.ref
            if staged.error is None:
                self._pending.append(job)
            else:
                self._end(job, Failed(job.task, staged.error, 1))

    def _bury(self, worker: Worker, *, overdue: bool = False) -> None:
        """A process has gone by itself, or takes too long."""
        job, status = worker.job, self._retire(worker)
        if job is None:
            return
        name = job.task.id
        if overdue or status == WATCHDOG_STATUS:
            took = f"decoding took longer than {self._settings.limits.timeout_s:g} s"
            error = VideoError("timeout", f"{name}: {took}", hint="raise --decode-timeout-s")
        else:
            job.kills += was_killed(status)
            error = VideoError("worker_died", f"{name}: the decode process died{how_it_ended(status)}")
        self._settle(job, error)

    def _retire(self, worker: Worker) -> int:
        """Kill a process; views of its ring stay valid. Its exit status."""
        self._workers.remove(worker)
        worker.connection.close()
        if self._zygote is None:
            return UNKNOWN_STATUS
        try:
            return self._zygote.kill(worker.pid)
        except RunError:
            self._replace_zygote()
            return UNKNOWN_STATUS

    def _replace_zygote(self) -> Zygote:
        """It died with all its children."""
        if self._zygote is not None:
            self._zygote.close()
        self._zygote = Zygote(self._settings)
        return self._zygote

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
            message = {"kind": "task", "id": job.task.id, "ref": asdict(job.ref), "start": job.delivered}
            self._send(worker, message)
            self._set_deadline(worker, self._settings.limits.timeout_s)

    def _spawn(self) -> Worker:
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
                try:
                    pid = self._zygote.spawn(theirs.fileno(), ring.descriptor)
                except RunError:  # killed when it had no children whose end would have told
                    pid = self._replace_zygote().spawn(theirs.fileno(), ring.descriptor)
        except BaseException:
            ours.close()
            raise
        finally:
            ring.close_descriptor()
        worker = Worker(pid, Connection(ours.detach()), ring, ring.slots)
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

    def _send(self, worker: Worker, message: dict[str, Any]) -> None:
        try:
            worker.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            # It is dead; the end of its connection is found by the next wait.
            return

    def _set_deadline(self, worker: Worker, left_s: float) -> None:
        """`left_s` is how long the worker may still be active; while it waits for slots it is not."""
        worker.left_s = left_s
        is_active = worker.job is not None and worker.free > 0
        worker.deadline = time.monotonic() + left_s if is_active else NEVER
