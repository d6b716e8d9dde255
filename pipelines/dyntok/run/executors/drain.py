"""SIGTERM: stop giving out work, let what is in work be committed for a while, then stop."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any


class Drain:
    """While it is entered, the first SIGTERM sets `asked` and a second one raises KeyboardInterrupt.

    When the grace period is over, `expired` is set and KeyboardInterrupt is raised in the main thread. Outside the
    main thread, where Python takes no signals, it never asks.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._until = float("inf")
        self._timer: threading.Timer | None = None
        self._before: Any = None
        self.asked = False

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self._until

    def __enter__(self) -> Drain:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._until = time.monotonic() + self._grace_s
        self._timer = threading.Timer(self._grace_s, _second_signal)
        self._timer.daemon = True
        self._timer.start()


def _second_signal() -> None:
    # SIGINT would do nothing where a shell started this process with `&`, which makes it ignored.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
