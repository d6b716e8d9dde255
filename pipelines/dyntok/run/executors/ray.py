"""On Ray actors. The driver gives out shards, hears of progress and follows up on deaths; it never sees a frame.

Ray itself restarts and retries nothing here: each death is looked into first, and `Schedule` says what follows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dyntok.errors import DyntokError, RunError
from dyntok.run.executors.actor import (
    ActorTask,
    EncodeActor,
    Progress,
    Remains,
    ShardResult,
    Started,
    read_remains,
)
from dyntok.run.executors.context import RunContext, absolute_config, absolute_url
from dyntok.run.executors.drain import Drain
from dyntok.run.executors.ledger import Ledger
from dyntok.run.executors.resources import Demand
from dyntok.run.executors.schedule import Probe, Schedule
from dyntok.run.executors.session import alive_nodes, session
from dyntok.run.messages import ShardWork
from dyntok.run.settings import software_versions
from dyntok.store import CompletionRecord, plan_digest
from dyntok.store.names import shard_name

# The class that is made an actor.
ACTOR: type[EncodeActor] = EncodeActor
POLL_S = 1.0
# How long a dead actor's node has to answer what is left of it.
REMAINS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
WAITING_NOTE_EVERY_S = 30.0


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


@dataclass(slots=True)
class _Member:
    """One place for an actor, and the actor that holds it now. `shards` are in it, with their number of videos."""

    number: int
    handle: Any
    started: Started | None = None
    failed_starts: int = 0
    shards: dict[int, ShardWork] = field(default_factory=dict)
    probe: Probe | None = None

    @property
    def videos(self) -> int:
        return sum(len(work.entries) for work in self.shards.values())


@dataclass(frozen=True, slots=True)
class _Death:
    """An actor that is gone, with what it had in work. `error` is set where no video can be to blame."""

    member: int
    started: Started
    works: tuple[ShardWork, ...]
    probe: Probe | None
    why: str
    error: DyntokError | None
    deadline: float


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that Ray has not answered yet: of a member, or for the remains of a dead one."""

    kind: str
    member: _Member | None = None
    shard: int = -1
    death: _Death | None = None


class Driver:
    """The loop of a run. Used by one thread."""

    def __init__(self, context: RunContext, asked: Demand, drain: Drain, pending: Sequence[int]) -> None:
        self._context, self._asked, self._drain = context, asked, drain
        config = context.config
        ledger = Ledger(context.root, config.max_attempts)
        self._schedule = Schedule(pending, context.load, ledger, config.max_attempts)
        actors = max(1, min(asked.actors, len(pending)))
        settings = {"device": asked.device, "decode_workers": asked.decode_workers}
        self._task = ray.put(
            ActorTask(
                url=absolute_url(context.root),
                config=absolute_config(config).model_copy(update=settings),
                spec=context.spec,
                info=context.info,
                # Patch releases of Python do not decide bytes; Ray itself checks what it needs.
                software={name: v for name, v in software_versions().items() if name != "python"},
                torch_threads=torch.get_num_threads(),
            )
        )
        # Shards of one video each must still keep every decode process busy.
        self._most_shards = asked.decode_workers + 2
        self._actor_class = ray.remote(ACTOR).options(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=self._most_shards + 4,
        )
        self._read_remains = ray.remote(read_remains)
        self._calls: dict[Any, _Call] = {}
        self._seen: dict[int, set[int]] = {}
        self._ever_started = False
        self._told_drain = False
        self._noted_waiting = time.monotonic()
        self._members = {number: self._hire(number) for number in range(actors)}

    # the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        while not self._schedule.finished:
            if self._drain.asked:
                self._stop_giving()
                if self._drain.expired or not self._in_work():
                    raise KeyboardInterrupt
            else:
                self._give_probes()
                self._give_shards()
                self._note_waiting()
            self._wait()

    def close(self) -> None:
        """End the actors: in order if nothing is in work, else at once."""
        members = [member for member in self._members.values() if member.started is not None]
        if self._schedule.finished:
            with suppress(RayError):
                ray.wait(
                    [member.handle.stop.remote() for member in members] or [ray.put(None)],
                    num_returns=max(1, len(members)),
                    timeout=STOP_TIMEOUT_S,
                )
        for member in self._members.values():
            ray.kill(member.handle)
        if not self._schedule.finished:
            calls = [self._ask_for_remains(member.started) for member in members if member.started]
            with suppress(RayError):
                if calls:
                    ray.wait(calls, num_returns=len(calls), timeout=STOP_TIMEOUT_S)
            for member in members:
                self._remove_scratch(member.shards)

    def raise_failures(self) -> None:
        """Raise the error of a shard that was given up, if one was."""
        failures = self._schedule.failures
        if not failures:
            return
        first = failures[min(failures)]
        if len(failures) > 1:
            self._context.observer.note(f"{len(failures)} shards could not be encoded: {sorted(failures)}")
        raise first

    def _in_work(self) -> bool:
        return any(member.shards for member in self._members.values())

    def _wait(self) -> None:
        """Handle whatever Ray answers within a second."""
        calls = list(self._calls)
        if not calls:
            time.sleep(POLL_S)
            return
        ray.wait(calls, num_returns=1, timeout=POLL_S)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        for ref in ready:
            call = self._calls.pop(ref, None)  # gone if its actor was found dead in this round
            if call is not None:
                self._answered(call, ref)
        now = time.monotonic()
        for ref, call in list(self._calls.items()):
            if call.death is not None and call.death.deadline <= now:
                del self._calls[ref]
                self._buried(call.death, None)

    def _answered(self, call: _Call, ref: Any) -> None:
        try:
            value = ray.get(ref)
        except RayError as error:
            if call.death is not None:
                self._buried(call.death, None)
            elif call.member is not None:
                self._lose(call.member, _reason(error))
            return
        if call.death is not None:
            self._buried(call.death, value)
        elif call.member is not None:
            getattr(self, f"_on_{call.kind}")(call.member, value)

    # giving -------------------------------------------------------------------------------------------------

    def _hire(self, number: int, failed_starts: int = 0) -> _Member:
        """Ask for an actor; it starts as soon as Ray has room for it."""
        member = _Member(number, self._actor_class.remote(self._task), failed_starts=failed_starts)
        self._call("start", member, member.handle.start.remote())
        return member

    def _call(self, kind: str, member: _Member, ref: Any) -> None:
        self._calls[ref] = _Call(kind, member)

    def _give_probes(self) -> None:
        for member in self._ready():
            if member.shards or member.probe is not None:
                continue
            member.probe = self._schedule.take_probe()
            if member.probe is None:
                return
            self._call("probe", member, member.handle.probe.remote(member.probe.entry))

    def _give_shards(self) -> None:
        """Keep every actor supplied for a while ahead, and share out evenly what is left at the end."""
        members = [member for member in self._ready() if member.probe is None]
        if self._schedule.wants_probe and members:
            # A probe needs an actor of its own: let one run dry, until a fresh one comes.
            members.remove(min(members, key=lambda member: len(member.shards)))
        if not members:
            return
        total = self._schedule.pending + sum(len(member.shards) for member in members)
        share = -(-total // len(members))
        for member in sorted(members, key=lambda member: len(member.shards)):
            while self._has_room(member, share) and (work := self._schedule.take_shard()) is not None:
                member.shards[work.shard] = work
                self._seen.setdefault(work.shard, set())
                self._call("shard", member, member.handle.encode.remote(work))

    def _has_room(self, member: _Member, share: int) -> bool:
        """Two shards at least, so that one begins while another ends; more where they hold few videos."""
        enough = len(member.shards) >= 2 and member.videos >= 2 * self._asked.decode_workers
        return not enough and len(member.shards) < min(share, self._most_shards)

    def _ready(self) -> list[_Member]:
        return [member for member in self._members.values() if member.started is not None]

    def _stop_giving(self) -> None:
        if self._told_drain:
            return
        self._told_drain = True
        for member in self._ready():
            member.handle.drain.remote()
        shards = sum(len(member.shards) for member in self._members.values())
        self._context.observer.note(
            f"stopping: {shards} shards in work have {self._context.config.grace_period_s:g} s to be committed"
        )

    def _note_waiting(self) -> None:
        if self._ready() or time.monotonic() - self._noted_waiting < WAITING_NOTE_EVERY_S:
            return
        self._noted_waiting = time.monotonic()
        free, asked = ray.available_resources(), self._asked
        self._context.observer.note(
            f"no actor is ready yet; each takes {asked.cpus:g} CPUs and {asked.gpus:g} GPUs, and "
            f"{free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free"
        )

    # answers ------------------------------------------------------------------------------------------------

    def _on_start(self, member: _Member, started: Started | DyntokError) -> None:
        if isinstance(started, DyntokError):
            # Another node may do; on one machine, what it says is final.
            self._start_failed(member, started, final=len(alive_nodes()) == 1)
            return
        member.started = started
        member.failed_starts = 0
        self._context.log.write(
            "actor", actor=member.number, node=started.node, pid=started.pid, device=started.device
        )
        if not self._ever_started:
            self._ever_started = True
            actors = len(self._members)
            where = f"{started.device}, {actors} actors" if actors > 1 else f"{started.device}, 1 actor"
            self._context.observer.model_loaded(self._context.spec.name, where)
        self._call("progress", member, member.handle.progress.remote(POLL_S))

    def _on_progress(self, member: _Member, progress: Progress) -> None:
        self._report(progress)
        # With many actors, each reports less often.
        wait_s = max(POLL_S, len(self._members) / 100)
        self._call("progress", member, member.handle.progress.remote(wait_s))

    def _on_shard(self, member: _Member, result: ShardResult) -> None:
        if result.error is not None or result.crash:
            self._broke(member, result)
            return
        work = member.shards.pop(result.shard)
        if result.returned:
            self._schedule.returned(result.shard)
            return
        self._log_output(work.shard, f"encoded by actor {member.number}", result.output)
        if result.progress is not None:
            self._report(result.progress)
        self._seen.pop(work.shard, None)
        self._schedule.done(work.shard)
        self._context.observer.shard(work.shard, result.bytes)

    def _on_probe(self, member: _Member, result: ShardResult) -> None:
        if result.error is not None or result.crash:
            self._broke(member, result)
            return
        probe, member.probe = member.probe, None
        if probe is not None:
            self._schedule.probed(probe, died=False)
            self._context.log.write("probe", id=probe.entry.id, shard=probe.entry.shard, outcome="survived")

    def _report(self, progress: Progress) -> None:
        observer = self._context.observer
        self._context.clock.add(progress.stages)
        if progress.frames:
            observer.frames(progress.frames, progress.patches, progress.tokens)
        for shard, row in progress.rows:
            # A shard that is encoded once more says everything once more.
            seen = self._seen.get(shard)
            if seen is None or row.position not in seen:
                observer.video(row)
            if seen is not None:
                seen.add(row.position)

    # deaths -------------------------------------------------------------------------------------------------

    def _broke(self, member: _Member, result: ShardResult) -> None:
        """An actor told that it cannot go on."""
        if result.error is not None and self._context.config.fail_fast and isinstance(result.error, RunError):
            raise result.error
        why = result.error.message if result.error is not None else result.crash.strip().splitlines()[-1]
        self._lose(member, why, result.error)

    def _lose(self, member: _Member, why: str, error: DyntokError | None = None) -> None:
        """An actor is dead, or as good as that: ask what it left, and for another one in its place."""
        self._calls = {ref: call for ref, call in self._calls.items() if call.member is not member}
        ray.kill(member.handle)
        if member.started is None:
            self._start_failed(member, RunError(f"an actor died while it started: {why}"), final=False)
            return
        death = _Death(
            member=member.number,
            started=member.started,
            works=tuple(member.shards.values()),
            probe=member.probe,
            why=why,
            error=error,
            deadline=time.monotonic() + REMAINS_TIMEOUT_S,
        )
        self._calls[self._ask_for_remains(member.started)] = _Call("remains", death=death)
        self._members[member.number] = self._hire(member.number)

    def _ask_for_remains(self, started: Started) -> Any:
        on_its_node = NodeAffinitySchedulingStrategy(started.node_id, soft=False)
        return self._read_remains.options(num_cpus=0, max_retries=0, scheduling_strategy=on_its_node).remote(
            started.folder
        )

    def _buried(self, death: _Death, remains: Remains | None) -> None:
        """What a dead actor left is known, or will never be."""
        node_alive = remains is not None or death.started.node_id in alive_nodes()
        output = remains.output if remains is not None else ""
        works = [work for work in death.works if not self._is_committed(work)]
        shards = [work.shard for work in works]
        self._remove_scratch(shards)
        self._context.log.write(
            "died",
            actor=death.member,
            node=death.started.node,
            pid=death.started.pid,
            node_alive=node_alive,
            shards=shards,
            probe=death.probe.entry.id if death.probe is not None else None,
            why=death.why,
        )
        for shard in shards or ([death.probe.entry.shard] if death.probe is not None else []):
            self._log_output(shard, f"actor {death.member} died: {death.why}", output or "(no output)")
        if death.probe is not None:
            self._judge_probe(death, death.probe, node_alive)
        if death.error is not None:
            self._schedule.failed(shards, death.error)
        elif remains is not None:
            self._schedule.died(shards, remains.traces.shards, remains.traces.suspects)
        else:
            self._schedule.died(shards, shards if node_alive else (), ())

    def _judge_probe(self, death: _Death, probe: Probe, node_alive: bool) -> None:
        if death.error is not None:
            self._schedule.probe_failed(probe, death.error)
        elif not node_alive:
            self._schedule.put_back(probe)
        elif self._schedule.probed(probe, died=True):
            self._context.log.write("quarantined", id=probe.entry.id, shard=probe.entry.shard)
            self._context.observer.note(
                f"{probe.entry.id} killed its process every time and is recorded as failed"
            )

    def _is_committed(self, work: ShardWork) -> bool:
        """Whether a shard was committed although its actor could not say so any more."""
        record = CompletionRecord.load(self._context.root, work.shard, plan_digest(work.entries))
        if record is None:
            return False
        self._seen.pop(work.shard, None)
        self._schedule.done(work.shard)
        self._context.observer.shard(work.shard, sum(file.bytes for file in record.files))
        return True

    def _start_failed(self, member: _Member, error: DyntokError, *, final: bool) -> None:
        ray.kill(member.handle)
        self._context.log.write("start failed", actor=member.number, error=error.message)
        failed = member.failed_starts + 1
        if failed < self._context.config.max_attempts and not final:
            self._members[member.number] = self._hire(member.number, failed)
            return
        del self._members[member.number]
        if not self._members:
            raise error

    def _remove_scratch(self, shards: Sequence[int] | dict[int, ShardWork]) -> None:
        """Remove what a dead actor had written of its shards; nobody has them now."""
        if not self._context.root.is_local:
            return
        scratch = self._context.root.scratch_dir()
        for shard in shards:
            for path in scratch.glob(f"{shard_name(shard)}-*"):
                _remove(path)

    def _log_output(self, shard: int, heading: str, output: str) -> None:
        if output:
            self._context.shard_log(shard, heading, output)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _reason(error: RayError) -> str:
    """The line of Ray's long messages that says what happened."""
    if isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[-1]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayActorError) and len(lines) > 1:
        return lines[-1].split(" Some common causes", 1)[0]
    return lines[0] if lines else type(error).__name__
