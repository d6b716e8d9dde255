"""Tries are bounded in number and time, waits grow and differ, and what will not pass is not tried again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dyntok.objects import MissingObjectError, ObjectStoreError, Patience, try_again
from tests.support.faulty_fs import denied, reset, throttled

PATIENCE = Patience(tries=5, first_wait_s=1.0, longest_wait_s=3.0, total_s=1000.0)


class Failing:
    """Fails `failures` times, then gives 7."""

    def __init__(self, failures: int, error: Callable[[], Exception] = throttled) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return 7


@pytest.mark.parametrize("failures", range(5))
def test_faults_that_pass_are_outlived(failures: int) -> None:
    call, waits = Failing(failures), []
    assert try_again(call, PATIENCE, sleep=waits.append) == 7
    assert call.calls == failures + 1 == len(waits) + 1
    for wait, longest in zip(waits, (1.0, 2.0, 3.0, 3.0), strict=False):
        assert longest / 2 <= wait <= longest


def test_tries_end() -> None:
    call = Failing(99, reset)
    with pytest.raises(ObjectStoreError, match=r"Connection reset by peer \(5 tries\)") as caught:
        try_again(call, PATIENCE, sleep=lambda _: None)
    assert caught.value.fault == "busy"
    assert call.calls == 5


def test_time_ends() -> None:
    call = Failing(99)
    with pytest.raises(ObjectStoreError):
        try_again(call, Patience(tries=99, first_wait_s=0.05, longest_wait_s=0.05, total_s=0.3))
    assert 3 <= call.calls <= 13


def test_waits_are_not_the_same_for_all() -> None:
    assert len({PATIENCE.wait_s(1) for _ in range(20)}) > 10


@pytest.mark.parametrize("error", [denied, FileNotFoundError, lambda: ValueError("odd"), lambda: KeyError(1)])
def test_what_does_not_pass_is_tried_once(error: Callable[[], Exception]) -> None:
    call = Failing(1, error)
    with pytest.raises(ObjectStoreError) as caught:
        try_again(call, PATIENCE)
    assert call.calls == 1 and caught.value.__cause__ is not None
    assert isinstance(caught.value, MissingObjectError) == isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_no_driver_raises_passes_through(error: type[BaseException]) -> None:
    with pytest.raises(error):
        try_again(Failing(1, error), PATIENCE)  # type: ignore[arg-type]


def test_giving_up() -> None:
    call, began = Failing(99), time.monotonic()
    with pytest.raises(ObjectStoreError):
        try_again(call, PATIENCE, give_up=lambda: call.calls == 2, sleep=lambda _: None)
    assert call.calls == 2 and time.monotonic() - began < 1
