"""The loop of a Ray run: gives out shards, hears of progress and follows up on deaths. It never sees a frame.

Ray itself restarts and retries nothing here: each death is looked into first, and `Schedule` says what follows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dyntok.errors import DyntokError, RunError
from dyntok.run.executors.context import RunContext
from dyntok.run.executors.deaths.ledger import Ledger
from dyntok.run.executors.deaths.marks import KILLS_FORGIVEN, Place
from dyntok.run.executors.deaths.schedule import Probe, Schedule
from dyntok.run.executors.drain import Drain
from dyntok.run.executors.local import marks_left
from dyntok.run.executors.ray.crew import REMAINS_TIMEOUT_S, Call, Crew, Death, Member, reason
from dyntok.run.executors.ray.exchange import ActorReport, ShardResult, Started
from dyntok.run.executors.ray.remains import Remains, remove_scratch
from dyntok.run.executors.ray.resources import Demand
from dyntok.run.executors.ray.session import alive_nodes
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.summaries import ShardSummary, summary_of
from dyntok.store import CompletionRecord, plan_digest

POLL_S = 1.0
NOTE_EVERY_S = 30.0


class Driver:
    """Used by one thread."""

    def __init__(self, context: RunContext, asked: Demand, drain: Drain, pending: Sequence[int]) -> None:
        self._context, self._asked, self._drain = context, asked, drain
        config = context.config
        self._left = marks_left(context.root, pending)
        ledger = Ledger(context.root, config.max_attempts)
        self._schedule = Schedule(pending, context.load, ledger, config.max_attempts, self._left.suspects)
        # Shards of one video each must still keep every decode process busy.
        self._most_shards = asked.decode_workers + 2
        size = max(1, min(asked.actors, len(pending)))
        self._crew = Crew(context, asked, size, self._most_shards)
        self._size = size
        self._seen: dict[int, set[int]] = {}
        self._kills: Counter[Place] = Counter()
        self._any_started = self._told_drain = False
        self._noted = time.monotonic()

    def run(self) -> None:
        """Go on until every shard is committed or given up. Raises KeyboardInterrupt once SIGTERM has stopped it."""
        while not self._schedule.finished:
            if self._drain.asked:
                self._stop_giving()
                if self._drain.expired or not self._crew.is_working:
                    raise KeyboardInterrupt
            else:
                self._give_probes()
                self._give_shards()
                self._note_waiting()
            for call, value in self._crew.answers(POLL_S):
                self._handle(call, value)
        self._left.forget()

    def close(self) -> None:
        """End the actors: in order if nothing is in work, else at once."""
        if self._schedule.finished:
            self._crew.stop()
            return
        self._crew.kill()
        for member in self._crew.members.values():
            remove_scratch(self._context.root, member.works)

    def raise_failures(self) -> None:
        """Raise the error of a shard that was given up, if one was."""
        failures = self._schedule.failures
        if failures:
            self._context.observer.note(f"not encoded: shards {', '.join(map(str, sorted(failures)))}")
            raise failures[min(failures)]

    # giving -------------------------------------------------------------------------------------------------

    def _give_probes(self) -> None:
        for member in self._crew.ready:
            if member.works or member.probe is not None:
                continue
            probe = self._schedule.take_probe()
            if probe is None:
                return
            self._crew.probe(member, probe)

    def _give_shards(self) -> None:
        """Keep every actor supplied for a while ahead, and share out evenly what is left at the end."""
        members = [member for member in self._crew.ready if member.probe is None]
        if self._schedule.wants_probe and members:
            # A probe needs an actor of its own: let one run dry, unless a fresh one comes before.
            members.remove(min(members, key=lambda member: len(member.works)))
        if not members:
            return
        total = self._schedule.pending + sum(len(member.works) for member in members)
        share = -(-total // len(members))
        for member in sorted(members, key=lambda member: len(member.works)):
            while self._has_room(member, share) and (work := self._schedule.take_shard()) is not None:
                self._seen.setdefault(work.shard, set())
                self._crew.encode(member, work)

    def _has_room(self, member: Member, share: int) -> bool:
        """Two shards at least, so that one begins while another ends; more where they hold few videos."""
        enough = len(member.works) >= 2 and member.videos >= 2 * self._asked.decode_workers
        return not enough and len(member.works) < min(share, self._most_shards)

    def _stop_giving(self) -> None:
        if self._told_drain:
            return
        self._told_drain = True
        self._crew.drain()
        shards = sum(len(member.works) for member in self._crew.members.values())
        grace_s = self._context.config.grace_period_s
        self._context.observer.note(f"stopping: {shards} shards in work have {grace_s:g} s to be committed")

    def _note_waiting(self) -> None:
        if self._crew.ready or time.monotonic() - self._noted < NOTE_EVERY_S:
            return
        self._noted = time.monotonic()
        free, asked = ray.available_resources(), self._asked
        self._context.observer.note(
            f"no actor is ready yet; each takes {asked.cpus:g} CPUs and {asked.gpus:g} GPUs, and "
            f"{free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free"
        )

    # answers ------------------------------------------------------------------------------------------------

    def _handle(self, call: Call, value: Any) -> None:
        if isinstance(call.of, Death):
            self._buried(call.of, value)
        elif isinstance(value, RayError):
            why = reason(value)
            # It may have raised an error; then it lives.
            self._lose(call.of, why, RunError(why) if isinstance(value, RayTaskError) else None)
        elif isinstance(value, ShardResult) and value.error is not None:
            self._broke(call.of, value.error)
        else:
            answers: dict[str, Callable[[Member, Any], None]] = {
                "start": self._on_start,
                "progress": self._on_progress,
                "shard": self._on_shard,
                "probe": self._on_probe,
            }
            answers[call.kind](call.of, value)

    def _on_start(self, member: Member, started: Started | DyntokError) -> None:
        if isinstance(started, DyntokError):
            # Another node may do; on one machine, what it says is final.
            self._start_failed(member, started, final=len(alive_nodes()) == 1)
            return
        member.started = started
        self._context.log.write("actor", actor=member.number, node=started.node, pid=started.pid, device=started.device)
        if not self._any_started:
            self._any_started = True
            actors = "1 actor" if self._size == 1 else f"{self._size} actors"
            self._context.observer.model_loaded(self._context.spec.name, f"{started.device}, {actors}")
        self._count_workers()
        self._crew.ask_progress(member, POLL_S)

    def _count_workers(self) -> None:
        actors = len(self._crew.ready)
        self._context.observer.workers(actors * self._asked.decode_workers, actors)

    def _on_progress(self, member: Member, report: ActorReport) -> None:
        self._report(report)
        member.queued = report.queued
        self._context.observer.queued(sum(member.queued for member in self._crew.ready))
        # Each of many actors reports less often.
        self._crew.ask_progress(member, max(POLL_S, self._size / 100))

    def _on_shard(self, member: Member, result: ShardResult) -> None:
        member.failed_starts = 0
        work = member.works.pop(result.shard)
        if result.summary is None:
            self._schedule.returned(work.shard)
            return
        if result.output:
            self._context.shard_log(work.shard, f"encoded by actor {member.number}", result.output)
        self._report(result.report)
        self._committed(result.summary)

    def _on_probe(self, member: Member, result: ShardResult) -> None:
        probe, member.probe = member.probe, None
        if probe is not None:
            self._schedule.probed(probe, died=False)
            self._context.log.write("probe", id=probe.entry.id, shard=probe.entry.shard, outcome="survived")

    def _report(self, report: ActorReport) -> None:
        observer = self._context.observer
        self._context.clock.add(report.stages)
        if report.frames:
            observer.frames(report.frames, report.patches, report.tokens)
        for shard, row in report.rows:
            # A shard that is encoded once more says everything once more.
            seen = self._seen.get(shard)
            if seen is None or row.position not in seen:
                observer.video(row)
            if seen is not None:
                seen.add(row.position)

    def _committed(self, summary: ShardSummary) -> None:
        self._seen.pop(summary.shard, None)
        self._schedule.done(summary.shard)
        self._context.observer.committed(summary)

    # deaths -------------------------------------------------------------------------------------------------

    def _start_failed(self, member: Member, error: DyntokError, *, final: bool) -> None:
        self._crew.dismiss(member)
        self._context.log.write("start failed", actor=member.number, error=error.message)
        failed = member.failed_starts + 1
        if failed < self._context.config.max_attempts and not final:
            self._crew.hire(member.number, failed)
        elif not self._crew.members:
            raise error

    def _broke(self, member: Member, error: DyntokError) -> None:
        """An actor said that it cannot go on."""
        if self._context.config.fail_fast and isinstance(error, RunError):
            raise error
        self._lose(member, error.message, error)

    def _lose(self, member: Member, why: str, error: DyntokError | None = None) -> None:
        """An actor is dead, or as good as that: ask what it left, and for another one in its place."""
        if member.started is None:
            self._start_failed(member, RunError(f"an actor died while it started: {why}"), final=False)
            return
        death = Death(
            member=member.number,
            started=member.started,
            works=tuple(member.works.values()),
            probe=member.probe,
            why=why,
            error=error,
            deadline=time.monotonic() + REMAINS_TIMEOUT_S,
        )
        self._crew.ask_remains(death)
        if member.works or member.probe is not None:
            self._crew.dismiss(member)
            # Where one after the other fails before it has committed anything, the next would, too.
            failed = member.failed_starts + 1 if isinstance(error, RunError) else 0
            if failed < self._context.config.max_attempts:
                self._crew.hire(member.number, failed)
            self._count_workers()
        else:
            self._start_failed(member, RunError(f"an actor died with nothing to do: {why}"), final=False)

    def _buried(self, death: Death, remains: Remains | None) -> None:
        """What a dead actor left is known, or will never be."""
        node_alive = remains is not None or death.started.node_id in alive_nodes()
        shards = [work.shard for work in death.works if not self._was_committed(work)]
        remove_scratch(self._context.root, shards)
        self._log_death(death, shards, node_alive, remains.output if remains is not None else "")
        if death.probe is not None:
            self._judge(death, death.probe, node_alive, remains)
        if death.error is not None:
            self._schedule.failed(shards, death.error)
            if not self._crew.members:
                raise death.error
        elif remains is not None:
            self._schedule.died(shards, remains.traces.shards, remains.traces.suspects)
        else:
            self._schedule.died(shards, shards if node_alive else (), ())

    def _judge(self, death: Death, probe: Probe, node_alive: bool, remains: Remains | None) -> None:
        if death.error is not None:
            self._schedule.probe_failed(probe, death.error)
        elif not node_alive or self._forgiven(death, probe, remains):
            self._schedule.put_back(probe)
        elif self._schedule.probed(probe, died=True):
            self._context.log.write("quarantined", id=probe.entry.id, shard=probe.entry.shard)
            self._context.observer.note(f"{probe.entry.id} killed its process every time and is recorded as failed")

    def _forgiven(self, death: Death, probe: Probe, remains: Remains | None) -> bool:
        """Whether somebody killed the actor, which says nothing of the video; not for ever."""
        if remains is None or remains.crashed:
            return False
        if remains.kernel_kills > death.started.kernel_kills:
            return False
        place = probe.entry.shard, probe.entry.position
        self._kills[place] += 1
        return self._kills[place] <= KILLS_FORGIVEN

    def _was_committed(self, work: ShardWork) -> bool:
        """Whether a shard was committed although its actor could not say so any more."""
        record = CompletionRecord.load(self._context.root, work.shard, plan_digest(work.entries))
        if record is not None:
            self._committed(summary_of(record))
        return record is not None

    def _log_death(self, death: Death, shards: Sequence[int], node_alive: bool, output: str) -> None:
        probed = death.probe.entry if death.probe is not None else None
        self._context.log.write(
            "died",
            actor=death.member,
            node=death.started.node,
            pid=death.started.pid,
            node_alive=node_alive,
            shards=list(shards),
            probe=probed.id if probed is not None else None,
            why=death.why,
        )
        for shard in [*shards, *([probed.shard] if probed is not None else [])]:
            self._context.shard_log(shard, f"actor {death.member} died: {death.why}", output or "(no output)")
