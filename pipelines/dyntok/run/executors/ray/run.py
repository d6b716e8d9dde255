"""On Ray actors, of this machine or of a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from dyntok.run.executors.context import RunContext
from dyntok.run.executors.drain import Drain
from dyntok.run.executors.ray.driver import Driver
from dyntok.run.executors.ray.session import session


def run(context: RunContext, pending: Sequence[int]) -> None:
    """Encode every pending shard.

    Raises:
        RunError: Ray or the actors cannot be started, a shard keeps losing its process for no reason that is found,
            or, with `fail_fast`, a video failed.
        StoreError: a shard could not be written, on several attempts.
        KeyboardInterrupt: SIGTERM came, and what was in work has been committed or the grace period is over.
    """
    with session(context.config) as asked, Drain(context.config.grace_period_s) as drain:
        driver = Driver(context, asked, drain, pending)
        try:
            driver.run()
        finally:
            driver.close()
    driver.raise_failures()
