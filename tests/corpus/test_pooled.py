"""Threads only where they help; the order and the errors are those of `map`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dyntok.corpus import pooled
from dyntok.corpus.pooled import ordered_map


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 500])
@pytest.mark.parametrize("sleep_s", [0.0, 1e-4])
def test_it_is_a_map(count: int, jobs: int, sleep_s: float) -> None:
    def square(number: int) -> int:
        if sleep_s:
            time.sleep(sleep_s)
        return number * number

    assert list(ordered_map(square, range(count), jobs=jobs)) == [n * n for n in range(count)]


def test_quick_calls_stay_in_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "_QUICK_S", 10.0)
    seen = set(ordered_map(lambda _: threading.get_ident(), range(2000), jobs=8))
    assert seen == {threading.get_ident()}


class Clock:
    """A clock that moves when calls are made: by so much for each call here, and by so much in a thread.

    `busy` is the share of that in which a call here computes; the rest it waits.
    """

    def __init__(self, here_s: float, thread_s: float, busy: float = 0.0) -> None:
        self.now = 0.0
        self._busy = busy
        self._costs = {True: here_s, False: thread_s}
        self._main = threading.get_ident()
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now * self._busy

    def call(self, _: int) -> bool:
        here = threading.get_ident() == self._main
        with self._lock:
            self.now += self._costs[here]
        return here


@pytest.mark.parametrize(
    ("here_s", "thread_s", "in_threads"),
    [
        (20e-6, 1e-6, (0.0, 0.0)),  # quick: threads are not even tried
        (100e-6, 30e-6, (0.9, 1.0)),  # they help
        (100e-6, 300e-6, (0.1, 0.3)),  # they do not, and are tried now and then
        (5e-3, 9e-3, (0.99, 1.0)),  # a network: always
    ],
)
def test_threads_are_taken_where_they_help(
    here_s: float, thread_s: float, in_threads: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(here_s, thread_s)
    monkeypatch.setattr(pooled, "time", clock)
    seen = list(ordered_map(clock.call, range(32 * 2000), jobs=4))
    share = seen.count(False) / len(seen)
    assert in_threads[0] <= share <= in_threads[1]


def test_calls_that_compute_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads would share one interpreter; what looks quicker there is chance."""
    clock = Clock(10e-3, 1e-3, busy=1.0)
    monkeypatch.setattr(pooled, "time", clock)
    assert all(ordered_map(clock.call, range(32 * 100), jobs=4))


def test_one_slow_look_does_not_bring_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when this thread had to wait for a core."""
    clock = Clock(20e-6, 1e-6)

    def call(number: int) -> bool:
        clock.now += 8e-3 if number % 320 == 319 else 0.0
        return clock.call(number)

    monkeypatch.setattr(pooled, "time", clock)
    assert all(ordered_map(call, range(32 * 100), jobs=4))


def test_memory_does_not_grow_with_the_stream() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(32 * 100):
            taken = number + 1
            yield number

    results = ordered_map(lambda n: (time.sleep(0.002), n)[1], items(), jobs=2)
    for number in range(64):
        assert next(results) == number
        assert taken <= number + 1 + 32 * (2 * 2 + 2)
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_at_its_place() -> None:
    def picky(number: int) -> int:
        time.sleep(1e-4)
        if number == 77:
            raise ValueError(number)
        return number

    results = ordered_map(picky, range(200), jobs=3)
    got: list[int] = []
    with pytest.raises(ValueError, match="77"):
        got.extend(results)
    assert got == list(range(64))
