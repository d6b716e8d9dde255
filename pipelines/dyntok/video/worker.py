"""A decode process: takes tasks from a socket, puts resized frames into shared memory, says so on the socket.

It has one thread of its own, a limit of memory, and a watchdog in C that ends it when a decoder hangs and nobody is
there to kill it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import IO, Any

from dyntok.errors import VideoError
from dyntok.records import SourceRef
from dyntok.video.decode import DecodedVideo
from dyntok.video.ring import FrameRing
from dyntok.video.settings import DecodeLimits, DecodeSettings, Sampling

# The watchdog lets the pool go first; its exit status is faulthandler's.
_WATCHDOG_GRACE_S = 5.0
WATCHDOG_STATUS = 1
_BATCHES_PER_RING = 4
# The watchdog's stack counts as memory too.
_OVERHEAD_BYTES = 4 << 20
_STACK_BYTES = 256 << 10


def settings_from_json(data: dict[str, Any]) -> DecodeSettings:
    """The inverse of `dataclasses.asdict`."""
    parts = {"sampling": Sampling(**data["sampling"]), "limits": DecodeLimits(**data["limits"])}
    return DecodeSettings(**{**data, **parts})


def serve(connection: Connection, descriptor: int, settings: DecodeSettings) -> None:
    """Decode what is asked for until the other end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.stack_size(_STACK_BYTES)
    limit_memory(settings.limits.memory_bytes)
    ring = FrameRing(descriptor, settings.height, settings.width, settings.limits.max_sampled_frames)
    with open(os.devnull, "w") as nowhere:
        _Worker(connection, ring, settings, nowhere).run()


def limit_memory(extra_bytes: int) -> None:
    """Let the process have `extra_bytes` of memory more than it has now (Linux; elsewhere nothing is limited)."""
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/status") as status:
        now = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + _OVERHEAD_BYTES + extra_bytes
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _HungUpError(Exception):
    """The pool has closed its end, and is about to have this process killed."""


class _Worker:
    def __init__(self, connection: Connection, ring: FrameRing, settings: DecodeSettings, nowhere: IO[str]) -> None:
        self._connection, self._ring, self._settings, self._nowhere = connection, ring, settings, nowhere
        self._free = ring.slots
        self._slot = 0
        self._batch = max(1, ring.slots // _BATCHES_PER_RING)
        self._active_s = 0.0
        self._active_since = 0.0

    def run(self) -> None:
        with suppress(_HungUpError):
            while True:
                message = self._receive()
                if message is not None:
                    self._decode(message)

    def _receive(self) -> dict[str, Any] | None:
        """A task; or None, and slots have become free."""
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise _HungUpError from error
        if message["kind"] == "credit":
            self._free += message["count"]
            return None
        return message

    def _decode(self, task: dict[str, Any]) -> None:
        self._active_s = 0.0
        try:
            self._resume()
            with DecodedVideo(SourceRef(**task["ref"]), self._settings, name=task["id"]) as video:
                self._ring.write_table(video.sampled)
                self._send("opened", count=len(video.sampled), info=asdict(video.info))
                self._send_frames(video, task["start"])
                stages = video.stages
            self._send("finished", stages=stages)
        except VideoError as error:
            self._send("failed", code=error.code, message=error.message, hint=error.hint)
        except (MemoryError, RuntimeError) as error:
            # torch says so with a RuntimeError.
            if not isinstance(error, MemoryError) and "allocate" not in str(error):
                raise
            self._send("failed", code="memory", message=f"{task['id']} needs more memory than the limit", hint=None)
        finally:
            self._pause()

    def _send_frames(self, video: DecodedVideo, start: int) -> None:
        first, count = self._slot, 0
        for image in video.images(start):
            if self._free == 0:
                self._send_batch(start, first, count)
                start, first, count = start + count, self._slot, 0
                self._wait_for_slots()
            self._ring.images[self._slot] = image
            self._free -= 1
            count += 1
            self._slot = (self._slot + 1) % self._ring.slots
            if count == self._batch or self._slot == 0:
                self._send_batch(start, first, count)
                start, first, count = start + count, self._slot, 0
        self._send_batch(start, first, count)

    def _send_batch(self, start: int, slot: int, count: int) -> None:
        if count:
            self._send("frames", start=start, slot=slot, count=count)

    def _wait_for_slots(self) -> None:
        """Waiting for the consumer is not charged to the video."""
        self._pause()
        while self._free == 0 or self._connection.poll():
            self._receive()
        self._resume()

    def _send(self, kind: str, **content: Any) -> None:
        active_s = self._active_s + time.monotonic() - self._active_since
        try:
            self._connection.send_bytes(json.dumps({"kind": kind, "active_s": active_s, **content}).encode())
        except ConnectionError as error:
            raise _HungUpError from error

    def _resume(self) -> None:
        self._active_since = time.monotonic()
        left = max(0.0, self._settings.limits.timeout_s - self._active_s) + _WATCHDOG_GRACE_S
        try:
            faulthandler.dump_traceback_later(left, exit=True, file=self._nowhere)
        except RuntimeError as error:
            raise MemoryError("no memory for a thread") from error

    def _pause(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._active_s += time.monotonic() - self._active_since
