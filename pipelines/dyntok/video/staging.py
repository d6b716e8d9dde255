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

from dyntok.errors import RunError, VideoError
from dyntok.objects import ObjectInfo, ObjectStoreError, PrivateFolder, Remote
from dyntok.objects.faults import describe
from dyntok.records import SourceRef
from dyntok.video.events import DecodeTask
from dyntok.video.sources import read_error

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
    ranges. Used by one thread. Raises OSError if there is no folder to be had.
    """

    def __init__(self, limit_bytes: int, jobs: int) -> None:
        self._limit, self._jobs = limit_bytes, jobs
        self._folder = PrivateFolder()
        self._waiting: deque[DecodeTask] = deque()
        self._ready: deque[Staged] = deque()
        self._broken: tuple[str, BaseException] | None = None
        # Tokens: of videos for which there has been no room yet, in order of arrival; and of those in the folder.
        self._queue: deque[int] = deque()
        self._held: dict[int, int] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._used = 0
        self._pending = 0
        self._stopped = False
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._reader

    @property
    def pending(self) -> int:
        """Videos that were added and not yet given by `ready`."""
        return self._pending

    def add(self, task: DecodeTask) -> None:
        """Fetch a video. Raises RuntimeError if there is no thread to be had for it."""
        if len(self._threads) < min(self._jobs, self._pending + 1):
            thread = threading.Thread(target=self._run, name="dyntok-fetch", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._pending += 1
        with self._changed:
            self._waiting.append(task)
            self._queue.append(task.token)
            self._changed.notify_all()

    def ready(self) -> list[Staged]:
        """What has come since the last call. Raises RunError once a thread died of anything but its video's faults."""
        with self._changed:
            if self._broken is not None:
                name, error = self._broken
                raise RunError(
                    f"fetching {name} broke off: {describe(error)}",
                    hint="the video is not to blame: free memory if it ran out, and run the same command again",
                ) from error
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
            # One that waits for the network is left to itself.
            thread.join(max(0.0, until - time.monotonic()))
        self._folder.close()
        os.close(self._reader)
        os.close(self._writer)

    # in the threads -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        name = "a video"
        try:
            while True:
                task = self._next()
                name = task.id
                staged = self._one(task)
                with self._changed:
                    self._check()
                    self._ready.append(staged)
                    os.write(self._writer, b"\0")
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the video
            with self._changed:
                if not self._stopped:
                    self._broken = name, error
                    os.write(self._writer, b"\0")

    def _next(self) -> DecodeTask:
        with self._changed:
            while not self._waiting:
                self._check()
                self._changed.wait()
            self._check()
            return self._waiting.popleft()

    def _one(self, task: DecodeTask) -> Staged:
        try:
            store, inner = Remote.open(task.ref.path, stop=lambda: self._stopped)
            info = store.info(inner)
            check_planned(task, info)
            size = info.size_bytes if task.ref.length is None else task.ref.length
            if not self._take(task.token, size):
                return Staged(task.token, task.ref)
            self._fetch(store, inner, task, info, size)
            return Staged(task.token, SourceRef(str(self._path(task.token))))
        except VideoError as error:
            problem: VideoError | None = error
        except (OSError, ValueError, ImportError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            problem = None if full else read_error(error, task.id)
        with self._changed:
            self._leave_queue(task.token)
        self.release(task.token)
        return Staged(task.token, task.ref, problem)

    def _take(self, token: int, size: int) -> bool:
        """Wait for room, in the order of arrival. False if there can never be enough."""
        with self._changed:
            while self._queue[0] != token or (self._used and self._used + size > self._limit):
                self._check()
                self._changed.wait()
            self._leave_queue(token)
            if size > self._limit:
                return False
            self._used += size
            self._held[token] = size
            return True

    def _leave_queue(self, token: int) -> None:
        """Let those behind it go first: it has room, or failed before its turn."""
        if token in self._queue:
            self._queue.remove(token)
            self._changed.notify_all()

    def _fetch(self, store: Remote, inner: str, task: DecodeTask, info: ObjectInfo, size: int) -> None:
        begin = task.ref.offset or 0
        if begin + size > info.size_bytes:
            raise VideoError("changed", f"{task.id} reaches beyond the end of its tar")
        path, parts = self._path(task.token), range(0, size, PART_BYTES)
        with open(path, "xb") as file:
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
        store.download(inner, path, lambda: self._stopped)
        if path.stat().st_size != size:
            raise VideoError("changed", f"{task.id} changed while it was read")

    def _path(self, token: int) -> Path:
        return self._folder.path / f"{token}.video"

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
