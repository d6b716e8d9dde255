"""Trying again: exponential backoff with jitter, bounded in number and time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from dyntok.objects.faults import error_of, fault_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long an operation is tried.

    Attributes:
        tries: in all.
        first_wait_s, longest_wait_s: waits double from the first to the longest; each is cut at random to between a
            half and the whole of it, so that many clients do not come back together.
        total_s: no try begins later than this after the first.
    """

    tries: int = 7
    first_wait_s: float = 0.25
    longest_wait_s: float = 15.0
    total_s: float = 120.0

    def wait_s(self, failed: int) -> float:
        """How long to wait after the `failed`-th failure (from 1)."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failed - 1))
        return longest * random.uniform(0.5, 1.0)


def try_again(
    call: Callable[[], T],
    patience: Patience,
    *,
    give_up: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], object] = time.sleep,
    secrets: Iterable[str] = (),
) -> T:
    """What `call` returns, tried again while it fails with a fault that may pass.

    `give_up` is asked before each wait; `secrets` are left out of messages. Raises ObjectStoreError; what no driver
    raises (KeyboardInterrupt, MemoryError) passes through.
    """
    began = time.monotonic()
    failed = 0
    while True:
        try:
            return call()
        except MemoryError:
            raise
        except Exception as error:
            failed += 1
            wait_s = patience.wait_s(failed)
            too_late = time.monotonic() - began + wait_s > patience.total_s
            if fault_of(error) != "busy" or failed >= patience.tries or too_late or give_up():
                raise error_of(error, tries=failed, secrets=secrets) from error
        sleep(wait_s)
