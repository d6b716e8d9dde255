"""What a device was asked to do: whether it has done it, and how long that took it."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Work(Protocol):
    """One batch at a device."""

    def wait(self) -> None:
        """Return once it is done, without using the CPU meanwhile."""

    @property
    def is_done(self) -> bool:
        """Whether `wait` would return at once."""

    @property
    def seconds(self) -> float:
        """How long the device was at it; to be asked for once it is done."""


class DoneWork:
    """Work that was done before whoever asked for it went on."""

    is_done = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def wait(self) -> None:
        """There is nothing to wait for."""


class CudaWork:
    """What is queued on a CUDA stream between making this and `end`."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end: Any = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        self._start.record(stream)

    def end(self) -> None:
        """Everything is queued."""
        self._end.record(self._stream)

    def wait(self) -> None:
        self._end.synchronize()

    @property
    def is_done(self) -> bool:
        return bool(self._end.query())

    @property
    def seconds(self) -> float:
        return float(self._start.elapsed_time(self._end)) / 1e3
