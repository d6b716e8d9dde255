"""Mapping over a stream with threads: bounded look-ahead, order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_CHUNK = 32


def chunks(items: Iterable[_In], size: int) -> Iterator[list[_In]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def ordered_map(fn: Callable[[_In], _Out], items: Iterable[_In], *, jobs: int) -> Iterator[_Out]:
    """`map(fn, items)` by `jobs` threads, for calls that wait for disk or network.

    At most `2 * jobs` chunks of 32 items are under way, so memory does not grow with the stream.
    An exception of `fn` is raised at its item's place.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")

    def run(chunk: list[_In]) -> list[_Out]:
        return [fn(item) for item in chunk]

    pending: deque[Future[list[_Out]]] = deque()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            for chunk in chunks(items, _CHUNK):
                pending.append(pool.submit(run, chunk))
                if len(pending) >= 2 * jobs:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
