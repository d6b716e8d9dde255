"""In this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dyntok.run.encoding import save_row_marker, shard_job
from dyntok.run.executors.context import RunContext
from dyntok.run.executors.drain import Drain
from dyntok.run.messages import ShardWork
from dyntok.run.pipeline import encode_shards
from dyntok.run.settings import decode_settings, decode_workers
from dyntok.video import DecodePool
from dyntok.vision import load_encoder


def run(context: RunContext, pending: Sequence[int]) -> None:
    """Encode every pending shard.

    Raises as `encode_shards` does; KeyboardInterrupt after SIGTERM, when the shards in work are committed or the
    grace period is over.
    """
    config, observer = context.config, context.observer
    # The decode processes start while the model loads.
    with DecodePool(decode_settings(config, context.spec), workers=decode_workers(config)) as pool:
        with context.clock.measure("load"):
            encoder = load_encoder(
                config.model,
                space=config.space,
                device=config.device,
                precision=config.precision,
                compile=config.compile,
                revision=config.revision,
            )
        observer.model_loaded(context.spec.name, str(encoder.device))
        save_row_marker(context.root, encoder)
        job = shard_job(context.root, context.info, config, encoder, pool, observer, context.clock)
        with Drain(config.grace_period_s) as drain:
            works = _Works(context, pending, drain)
            encode_shards(job, works)
    if works.left:
        raise KeyboardInterrupt


class _Works(Iterator[ShardWork]):
    """The pending shards, until SIGTERM comes."""

    def __init__(self, context: RunContext, pending: Sequence[int], drain: Drain) -> None:
        self._context, self._drain = context, drain
        self._pending = list(pending)[::-1]

    @property
    def left(self) -> int:
        return len(self._pending)

    def __next__(self) -> ShardWork:
        if self._drain.asked or not self._pending:
            raise StopIteration
        return self._context.load(self._pending.pop())
