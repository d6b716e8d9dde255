"""In this process."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dyntok.run.executors.context import RunContext
from dyntok.run.executors.deaths.ledger import Ledger
from dyntok.run.executors.deaths.marks import Marks, Place, is_abandoned, read_marks
from dyntok.run.executors.deaths.probing import ProbeChild
from dyntok.run.executors.deaths.schedule import Schedule
from dyntok.run.executors.drain import Drain
from dyntok.run.settings import decode_settings, decode_workers
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.shard.model import load_model, save_row_marker
from dyntok.run.tell.observer import Observers, RunObserver
from dyntok.store import StoreRoot
from dyntok.store.names import LOG_FOLDER
from dyntok.video import DecodePool

MARK_FOLDER = f"{LOG_FOLDER}/marks"


def run(context: RunContext, pending: Sequence[int]) -> None:
    """Encode every pending shard.

    Raises as `encode_shards` does; KeyboardInterrupt after SIGTERM, when the shards in work are committed or the
    grace period is over.
    """
    config = context.config
    ledger = Ledger(context.root, config.max_attempts)
    left = marks_left(context.root, pending)
    schedule = Schedule(pending, context.load, ledger, config.max_attempts, left.suspects)
    if schedule.wants_probe:
        _look_into_deaths(context, schedule)
    left.forget()
    # The decode processes start while the model loads.
    context.observer.workers(decode_workers(config), 1)
    with DecodePool(decode_settings(config, context.spec), workers=decode_workers(config)) as pool:
        with context.clock.measure("load"):
            encoder = load_model(config)
        context.observer.model_loaded(context.spec.name, str(encoder.device))
        save_row_marker(context.root, encoder)
        with _marked(context) as observer, Drain(config.grace_period_s) as drain:
            job = ShardJob(context.root, context.info, config, encoder, pool, observer, context.clock)
            encode_shards(job, _works(schedule, drain, context))
    if schedule.pending:
        raise KeyboardInterrupt


def _works(schedule: Schedule, drain: Drain, context: RunContext) -> Iterator[ShardWork]:
    """The pending shards, until SIGTERM comes."""
    while not drain.asked:
        work = schedule.take_shard()
        if work is None:
            return
        yield work
    grace_s = context.config.grace_period_s
    context.observer.note(f"stopping: shards in work have {grace_s:g} s to be committed")


@dataclass(frozen=True, slots=True)
class MarksLeft:
    """Videos that local runs had in work when they died, and the files that say so."""

    suspects: tuple[Place, ...]
    files: tuple[Path, ...]

    def forget(self) -> None:
        """Remove the files, once the suspects are looked into."""
        for file in self.files:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def marks_left(root: StoreRoot, pending: Sequence[int]) -> MarksLeft:
    """What dead local runs marked of pending shards. Marks lie in the store, and so only in a local one."""
    folder = root.local_path(MARK_FOLDER)
    wanted = set(pending)
    suspects: dict[Place, None] = {}
    files = []
    # Nothing is known of marks that another user keeps to himself.
    readable = folder is not None and os.access(folder, os.R_OK | os.X_OK)
    for path in sorted(folder.iterdir()) if folder is not None and readable else ():
        if is_abandoned(path):
            traces = read_marks(path)
            suspects.update(dict.fromkeys(place for place in traces.suspects if place[0] in wanted))
            if traces.shards <= wanted:
                files.append(path)
    return MarksLeft(tuple(suspects), tuple(files))


def _look_into_deaths(context: RunContext, schedule: Schedule) -> None:
    """Encode each suspect alone, so that one which kills its process does not kill this one."""
    with ProbeChild(context) as child:
        while (probe := schedule.take_probe()) is not None:
            context.observer.note(f"{probe.entry.id} was in work when a process died: trying it alone")
            died = child.died_of(probe.entry)
            if schedule.probed(probe, died=died):
                context.observer.note(f"{probe.entry.id} killed its process every time and is recorded as failed")


@contextmanager
def _marked(context: RunContext) -> Iterator[RunObserver]:
    """Keep marks of what is in work; they are left behind if this process dies, and only then."""
    folder = context.root.local_path(MARK_FOLDER)
    if folder is None:
        yield context.observer
        return
    with closing(Marks(folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")) as marks:
        yield Observers(marks, context.observer)
