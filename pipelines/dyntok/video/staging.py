"""Remote videos are fetched ahead of decoding into a private folder of bounded size; once decoded, they go.

Whole files, since a video is read at least twice, once for its frame index: FFmpeg reading an object through byte
ranges fetched two to two and a half times the bytes and took two to four times as long (200 MB files, 30 ms a request).
Only a file that is larger than the whole folder may become is read by ranges.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from dyntok.errors import VideoError
from dyntok.objects import ObjectInfo, ObjectStoreError, PrivateFolder, Remote
from dyntok.records import SourceRef
from dyntok.video.events import DecodeTask
from dyntok.video.sources import is_remote, read_error

PART_BYTES = 8 * 2**20
_CLOSE_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Staged:
    """A video that can be decoded from `ref`, or cannot be had."""

    token: int
    ref: SourceRef
    error: VideoError | None = None


class _StoppedError(Exception):
    """The staging was closed."""


class Staging:
    """Fetches videos in threads, first come, first served. `fileno()` is readable while `ready()` has something.

    At most `limit_bytes` lie in the folder, those that are being decoded included; what does not fit waits. A video
    that is larger than the limit, or for which the disk has no room, is given back as it is: it is then read by
    ranges. Used by one thread.
    """

    def __init__(self, limit_bytes: int, jobs: int) -> None:
        self._limit, self._jobs = limit_bytes, jobs
        self._folder: PrivateFolder | None = None
        self._waiting: deque[tuple[int, DecodeTask]] = deque()
        self._ready: deque[Staged] = deque()
        self._held: dict[int, int] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._used = 0
        self._tickets = 0
        self._turn = 0
        self._out_of_turn: set[int] = set()
        self._pending = 0
        self._stopped = False
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @staticmethod
    def takes(task: DecodeTask) -> bool:
        """Whether the video has to be fetched."""
        return is_remote(task.ref)

    def fileno(self) -> int:
        return self._reader

    @property
    def pending(self) -> int:
        """Videos that were added and not yet given by `ready`."""
        return self._pending

    def add(self, task: DecodeTask) -> None:
        """Fetch a video. Raises OSError if there is no folder for it."""
        if self._folder is None:
            self._folder = PrivateFolder()
        self._pending += 1
        with self._changed:
            self._waiting.append((self._tickets, task))
            self._tickets += 1
            self._changed.notify_all()
        if len(self._threads) < min(self._jobs, self._pending):
            thread = threading.Thread(target=self._run, name="dyntok-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def ready(self) -> list[Staged]:
        """What has come since the last call."""
        with self._changed:
            found = list(self._ready)
            self._ready.clear()
            if found:
                os.read(self._reader, 1 << 16)
        self._pending -= len(found)
        return found

    def release(self, token: int) -> None:
        """The video is not needed any more."""
        with self._changed:
            size = self._held.pop(token, None)
            if size is None:
                return
            self._path(token).unlink(missing_ok=True)
            self._used -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Stop fetching and remove the folder."""
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._changed.notify_all()
        until = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(
                max(0.0, until - time.monotonic())
            )  # one that waits for the network is left to itself
        if self._folder is not None:
            self._folder.close()
        os.close(self._reader)
        os.close(self._writer)

    # in the threads -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._one(*self._next())
        except _StoppedError:
            return

    def _next(self) -> tuple[int, DecodeTask]:
        with self._changed:
            while not self._waiting:
                self._check()
                self._changed.wait()
            self._check()
            return self._waiting.popleft()

    def _one(self, ticket: int, task: DecodeTask) -> None:
        try:
            store, inner = Remote.open(task.ref.path, stop=lambda: self._stopped)
            info = store.info(inner)
            check_planned(task, info)
            size = info.size_bytes if task.ref.length is None else task.ref.length
            if not self._take(ticket, task.token, size):
                return self._give(Staged(task.token, task.ref))
            self._fetch(store, inner, task, info, size)
            return self._give(Staged(task.token, SourceRef(str(self._path(task.token)))))
        except _StoppedError:
            raise
        except VideoError as error:
            problem: VideoError | None = error
        except (OSError, ValueError, ImportError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            problem = None if full else read_error(error, task.id)
        self._leave_queue(ticket)
        self.release(task.token)
        return self._give(Staged(task.token, task.ref, problem))

    def _take(self, ticket: int, token: int, size: int) -> bool:
        """Wait for room, in the order of arrival. False if there can never be enough."""
        with self._changed:
            while self._turn != ticket or (self._used and self._used + size > self._limit):
                self._check()
                self._changed.wait()
            self._next_turn()
            if size > self._limit:
                return False
            self._used += size
            self._held[token] = size
            return True

    def _leave_queue(self, ticket: int) -> None:
        """A video that failed before its turn must not hold up those behind it."""
        with self._changed:
            if ticket > self._turn:
                self._out_of_turn.add(ticket)
            elif ticket == self._turn:
                self._next_turn()

    def _next_turn(self) -> None:
        self._turn += 1
        while self._turn in self._out_of_turn:
            self._out_of_turn.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()

    def _fetch(self, store: Remote, inner: str, task: DecodeTask, info: ObjectInfo, size: int) -> None:
        begin = task.ref.offset or 0
        if begin + size > info.size_bytes:
            raise VideoError("changed", f"{task.id} reaches beyond the end of its tar")
        parts = range(0, size, PART_BYTES)
        with open(self._path(task.token), "xb") as file:
            for start in parts:
                with self._changed:
                    self._check()
                try:
                    data = store.read(inner, begin + start, min(PART_BYTES, size - start))
                except ObjectStoreError as error:
                    if store.is_web and start and error.fault == "broken" and task.ref.is_whole_file:
                        break
                    raise
                file.write(data)
            else:
                if len(parts) > 1 and store.info(inner) != info:
                    raise VideoError("changed", f"{task.id} changed while it was read")
                return
        # The web server gives no ranges.
        store.download(inner, self._path(task.token), lambda: self._stopped)
        if self._path(task.token).stat().st_size != size:
            raise VideoError("changed", f"{task.id} changed while it was read")

    def _path(self, token: int) -> Path:
        if self._folder is None:
            raise ValueError("nothing was added")
        return self._folder.path / f"{token}.video"

    def _give(self, staged: Staged) -> None:
        with self._changed:
            self._check()
            self._ready.append(staged)
            os.write(self._writer, b"\0")

    def _check(self) -> None:
        if self._stopped:
            raise _StoppedError


def check_planned(task: DecodeTask, info: ObjectInfo) -> None:
    """Raise VideoError `changed` unless the object is the one that was planned, as far as the plan can tell."""
    if info.is_folder:
        raise VideoError("unreadable", f"{task.id} is a folder")
    if not task.ref.is_whole_file:
        return
    other_size = task.size_bytes is not None and task.size_bytes != info.size_bytes
    other_etag = task.etag is not None and info.etag is not None and task.etag != info.etag
    if other_size or other_etag:
        raise VideoError(
            "changed",
            f"{task.id} is not the file that was planned",
            hint="restore it, or take it as it is now with --retry-failed",
        )
