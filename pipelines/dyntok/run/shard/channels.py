"""Threads with one owner and one way to fail: the first error anywhere stops them all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_S = 0.2


class StoppedError(Exception):
    """Another thread of the run failed or the run was stopped; unwinds quietly."""


class RunState:
    """Shared by the threads of a run: whether to stop, and the first error."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._lock = threading.Lock()

    def fail(self, error: BaseException) -> None:
        with self._lock:
            if self.error is None:
                self.error = error
        self.stop.set()

    def check(self) -> None:
        """Raise what another thread failed with."""
        if self.error is not None:
            raise self.error
        if self.stop.is_set():
            raise StoppedError


class Channel(Generic[T]):
    """A bounded queue whose both ends give up when the run stops."""

    def __init__(self, state: RunState, size: int) -> None:
        self._queue: queue.Queue[T] = queue.Queue(size)
        self._state = state

    def put(self, item: T) -> None:
        while True:
            self._state.check()
            try:
                return self._queue.put(item, timeout=POLL_S)
            except queue.Full:
                continue

    def get(self) -> T:
        while True:
            self._state.check()
            try:
                return self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue

    def waiting(self, kind: type) -> int:
        """How many items of a kind wait now."""
        with self._queue.mutex:
            return sum(isinstance(item, kind) for item in self._queue.queue)


def start_thread(name: str, state: RunState, body: Callable[[], None]) -> threading.Thread:
    """Run `body` in a thread; what it raises becomes the run's error."""

    def guarded() -> None:
        try:
            body()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            state.fail(error)

    thread = threading.Thread(target=guarded, name=f"dyntok-{name}", daemon=True)
    thread.start()
    return thread
