"""Mapping over a stream with threads where they help: bounded look-ahead, order kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from statistics import median
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_CHUNK = 32
# A call that waits less gains nothing from threads: they would spend more than that on waiting for the interpreter.
_QUICK_S = 50e-6
# Looks that are remembered: on a busy machine a single one may have waited for a core.
_LOOKS = 5
# A call that takes more waits for a network or a disk, so threads help for certain. In between it is tried out.
_SLOW_S = 1e-3
_TRIAL, _SHORT, _LONG = 32, 128, 1024


def chunks(items: Iterable[_In], size: int) -> Iterator[list[_In]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def ordered_map(fn: Callable[[_In], _Out], items: Iterable[_In], *, jobs: int) -> Iterator[_Out]:
    """`map(fn, items)` by up to `jobs` threads, for calls that may wait for disk or network.

    Threads are taken while they are quicker than calling `fn` here, which is measured from time to time. At most
    `2 * jobs` chunks of 32 items are under way, so memory does not grow with the stream. An exception of `fn` is raised
    at its item's place.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    mapping = _Mapping(fn, chunks(items, _CHUNK), jobs)
    while not mapping.exhausted:
        yield from mapping.here(1)
        if jobs == 1 or mapping.exhausted or median(mapping.waits_s) <= _QUICK_S:
            continue
        here_s = mapping.each_s
        yield from mapping.threads(_TRIAL if here_s < _SLOW_S else None)
        if mapping.each_s < 0.8 * here_s:
            yield from mapping.threads(_LONG)
        else:
            yield from mapping.here(_SHORT)


class _Mapping(Generic[_In, _Out]):
    """A map in progress.

    `each_s`: seconds an item took in the last stretch, without what the consumer took. `waits_s`: seconds of waiting an
    item in the last chunks that were done here.
    """

    def __init__(self, fn: Callable[[_In], _Out], waiting: Iterator[list[_In]], jobs: int) -> None:
        self._fn, self._waiting, self._jobs = fn, waiting, jobs
        self.exhausted = False
        self.each_s = 0.0
        self.waits_s: deque[float] = deque(maxlen=_LOOKS)

    def here(self, count: int) -> Iterator[_Out]:
        """The next `count` chunks in this thread."""
        for chunk in self._next(count):
            start, busy = time.perf_counter(), time.thread_time()
            done = self._run(chunk)
            seconds, busy = time.perf_counter() - start, time.thread_time() - busy
            self.each_s = seconds / len(chunk)
            self.waits_s.append((seconds - busy) / len(chunk))
            yield from done

    def threads(self, count: int | None) -> Iterator[_Out]:
        """The next `count` chunks, or all that are left, by threads."""
        pending: deque[Future[list[_Out]]] = deque()
        seconds, number = 0.0, 0
        chunks = self._next(count)
        with ThreadPoolExecutor(max_workers=self._jobs) as pool:
            try:
                while True:
                    start = time.perf_counter()
                    while len(pending) < 2 * self._jobs and (chunk := next(chunks, None)):
                        pending.append(pool.submit(self._run, chunk))
                        number += len(chunk)
                    if not pending:
                        break
                    done = pending.popleft().result()
                    seconds += time.perf_counter() - start
                    yield from done
            finally:
                for future in pending:
                    future.cancel()
        self.each_s = seconds / number if number else 0.0

    def _run(self, chunk: list[_In]) -> list[_Out]:
        return [self._fn(item) for item in chunk]

    def _next(self, count: int | None) -> Iterator[list[_In]]:
        number = 0
        while count is None or number < count:
            chunk = next(self._waiting, None)
            if chunk is None:
                self.exhausted = True
                return
            number += 1
            yield chunk
