"""The actors of a run and the calls that Ray has not answered yet. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dyntok.errors import DyntokError
from dyntok.run.executors.context import RunContext, absolute_config
from dyntok.run.executors.deaths.schedule import Probe
from dyntok.run.executors.ray.actor import EncodeActor
from dyntok.run.executors.ray.exchange import ActorTask, Started
from dyntok.run.executors.ray.remains import read_remains
from dyntok.run.executors.ray.resources import Demand
from dyntok.run.settings import software_versions
from dyntok.run.shard.messages import ShardWork

# The class that is made an actor.
ACTOR: type[EncodeActor] = EncodeActor
# How long the node of a dead actor has to answer what is left of it.
REMAINS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
# Methods of an actor beside `encode` that run at the same time, and one to spare.
OTHER_CALLS = 4


@dataclass(slots=True, eq=False)
class Member:
    """One place for an actor, and the actor that holds it now; `works` are the shards that are in it."""

    number: int
    handle: Any
    started: Started | None = None
    failed_starts: int = 0
    queued: int = 0
    works: dict[int, ShardWork] = field(default_factory=dict)
    probe: Probe | None = None

    @property
    def videos(self) -> int:
        return sum(len(work.entries) for work in self.works.values())


@dataclass(frozen=True, slots=True, eq=False)
class Death:
    """An actor that is gone, with what it had in work.

    `error`: it did not die, but said that it cannot go on; then no video can be to blame.
    """

    member: int
    started: Started
    works: tuple[ShardWork, ...]
    probe: Probe | None
    why: str
    error: DyntokError | None
    deadline: float


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call that is under way: `start`, `shard`, `probe` or `progress` of a member, or `remains` of a death."""

    kind: str
    of: Member | Death


class Crew:
    """Used by one thread. `members` have a place; those whose `started` is set are ready for work."""

    def __init__(self, context: RunContext, asked: Demand, size: int, shards_each: int) -> None:
        self._task = ray.put(actor_task(context, asked))
        self._class = ray.remote(ACTOR).options(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=shards_each + OTHER_CALLS,
        )
        self._read_remains = ray.remote(read_remains)
        self._calls: dict[Any, Call] = {}
        self.members: dict[int, Member] = {}
        for number in range(size):
            self.hire(number)

    @property
    def ready(self) -> list[Member]:
        return [member for member in self.members.values() if member.started is not None]

    @property
    def is_working(self) -> bool:
        """Whether a shard is in an actor."""
        return any(member.works for member in self.members.values())

    def hire(self, number: int, failed_starts: int = 0) -> None:
        """Ask for an actor in this place; it starts as soon as Ray has room for it."""
        member = Member(number, self._class.remote(self._task), failed_starts=failed_starts)
        self.members[number] = member
        self._calls[member.handle.start.remote()] = Call("start", member)

    def encode(self, member: Member, work: ShardWork) -> None:
        member.works[work.shard] = work
        self._calls[member.handle.encode.remote(work)] = Call("shard", member)

    def probe(self, member: Member, probe: Probe) -> None:
        member.probe = probe
        self._calls[member.handle.probe.remote(probe.entry)] = Call("probe", member)

    def ask_progress(self, member: Member, wait_s: float) -> None:
        self._calls[member.handle.progress.remote(wait_s)] = Call("progress", member)

    def drain(self) -> None:
        """Have shards handed back that are not begun."""
        for member in self.ready:
            member.handle.drain.remote()

    def dismiss(self, member: Member) -> None:
        """End an actor at once and take its place away; what it was asked is not answered any more."""
        _kill(member.handle)
        self._calls = {ref: call for ref, call in self._calls.items() if call.of is not member}
        self.members.pop(member.number, None)

    def ask_remains(self, death: Death) -> None:
        """Ask the node of a dead actor for its marks and output."""
        self._calls[self._remains_of(death.started)] = Call("remains", death)

    def answers(self, timeout_s: float) -> Iterator[tuple[Call, Any]]:
        """Calls that were answered, waiting up to `timeout_s` for the first, each with its value.

        The value is a RayError where the actor died, and None for remains that nobody can give.
        """
        calls = list(self._calls)
        if not calls:
            time.sleep(timeout_s)
            return
        ray.wait(calls, num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        for ref in ready:
            call = self._calls.pop(ref, None)
            if call is not None:  # else its member was dismissed a moment ago
                yield call, _value(ref, call)
        now = time.monotonic()
        for ref, call in list(self._calls.items()):
            if isinstance(call.of, Death) and call.of.deadline <= now:
                del self._calls[ref]
                yield call, None

    def stop(self) -> None:
        """End every actor in order; nothing may be in work."""
        refs = [member.handle.stop.remote() for member in self.ready]
        if refs:
            with suppress(RayError):
                ray.wait(refs, num_returns=len(refs), timeout=STOP_TIMEOUT_S)
        for member in self.members.values():
            _kill(member.handle)

    def kill(self) -> None:
        """End every actor at once, and remove what each has on its node."""
        for member in self.members.values():
            _kill(member.handle)
        refs = [self._remains_of(member.started) for member in self.ready if member.started is not None]
        if refs:
            with suppress(RayError):
                ray.wait(refs, num_returns=len(refs), timeout=STOP_TIMEOUT_S)

    def _remains_of(self, started: Started) -> Any:
        there = NodeAffinitySchedulingStrategy(started.node_id, soft=False)
        options = self._read_remains.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        return options.remote(started.folder)


def reason(error: RayError) -> str:
    """The line of Ray's long messages that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if isinstance(error, RayTaskError):
        return lines[-1]
    return lines[-1].split(" Some common causes", 1)[0] if isinstance(error, RayActorError) else lines[0]


def _value(ref: Any, call: Call) -> Any:
    try:
        return ray.get(ref)
    except RayError as error:
        return None if call.kind == "remains" else error


def _kill(handle: Any) -> None:
    with suppress(RayError, ValueError):
        ray.kill(handle)


def actor_task(context: RunContext, asked: Demand) -> ActorTask:
    """What every actor of a run is told."""
    settings = {"device": asked.device, "decode_workers": asked.decode_workers}
    return ActorTask(
        url=context.root.address,
        scratch=context.root.scratch,
        config=absolute_config(context.config).model_copy(update=settings),
        spec=context.spec,
        info=context.info,
        # Patch releases of Python do not decide bytes; Ray itself checks what it needs.
        software={name: version for name, version in software_versions().items() if name != "python"},
        torch_threads=torch.get_num_threads(),
    )
