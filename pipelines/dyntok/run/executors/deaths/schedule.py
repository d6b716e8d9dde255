"""Which shard or probe comes next, and what follows from a process that died. Pure: it starts nothing itself.

A process that dies takes its shards with it. Each video that it had begun and not finished is a suspect, so before
those shards are given out again, the suspects are encoded one by one, each alone in a process (a *probe*, which
commits nothing). One that kills its process every time is quarantined: its shard is encoded without it, and it is
recorded as failed. If all survive, the death had another cause, and the shards are simply given out again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dyntok.errors import DyntokError, RunError
from dyntok.records import PlanEntry
from dyntok.run.executors.deaths.ledger import Ledger
from dyntok.run.executors.deaths.marks import Place
from dyntok.run.shard.messages import ShardWork
from dyntok.store import plan_digest

# Deaths without a culprit that one shard may have in a run, for each attempt that a video has.
DEATHS_PER_ATTEMPT = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """One video to encode alone, for inquest number `inquest`."""

    inquest: int
    entry: PlanEntry

    @property
    def place(self) -> Place:
        return self.entry.shard, self.entry.position


@dataclass(slots=True)
class _Inquest:
    """The shards of one death wait for it; its suspects are probed in order."""

    shards: tuple[int, ...]
    suspects: deque[Place]
    running: bool = False


class Schedule:
    """Used by one thread.

    Args:
        pending: the shards to encode, in order.
        load: reads a shard's rows of the plan.
        ledger: what is known of earlier deaths.
        max_attempts: times that a video alone may kill its process.
        suspects: videos that an earlier run had in work when it died.

    `failures` has the shards that this run gives up, with the reason.
    """

    def __init__(
        self,
        pending: Sequence[int],
        load: Callable[[int], ShardWork],
        ledger: Ledger,
        max_attempts: int,
        suspects: Iterable[Place] = (),
    ) -> None:
        self._load, self._ledger = load, ledger
        self._max_attempts = max_attempts
        self._pending: deque[int] = deque()
        self._out: set[int] = set()
        self._inquests: dict[int, _Inquest] = {}
        self._inquests_held = 0
        self._deaths: dict[int, int] = {}
        self._errors: dict[int, int] = {}
        self.failures: dict[int, DyntokError] = {}
        questions: dict[int, list[Place]] = {}
        for place in suspects:
            questions.setdefault(place[0], []).append(place)
        for shard in pending:
            if shard in questions or shard in ledger:
                self._hold((shard,), self._open_questions(shard, questions.get(shard, [])))
            else:
                self._pending.append(shard)

    def _open_questions(self, shard: int, suspects: list[Place]) -> list[Place]:
        """Suspects of an earlier run; those with a death to their name, which it was still probing, come first."""
        known = self._ledger.of(shard, plan_digest(self._load(shard).entries))
        probing = [(shard, position) for position in sorted(known.alone)]
        others = [place for place in suspects if place not in probing]
        return [place for place in (*probing, *others) if place[1] not in known.quarantined]

    @property
    def pending(self) -> int:
        """Shards that may be given out now."""
        return len(self._pending)

    @property
    def finished(self) -> bool:
        """Whether every shard is committed or given up."""
        return not (self._pending or self._out or self._inquests)

    @property
    def wants_probe(self) -> bool:
        return any(not inquest.running for inquest in self._inquests.values())

    def take_shard(self) -> ShardWork | None:
        """The next shard to encode; it is out until `done`, `returned` or `lost` is called."""
        if not self._pending:
            return None
        shard = self._pending.popleft()
        self._out.add(shard)
        return self._ledger.applied(self._load(shard))

    def done(self, shard: int) -> None:
        """A shard is committed."""
        self._out.discard(shard)

    def returned(self, shard: int) -> None:
        """A shard comes back that was not begun."""
        self._out.discard(shard)
        self._pending.appendleft(shard)

    def died(self, shards: Iterable[int], begun: Iterable[int], suspects: Iterable[Place]) -> None:
        """A process died while it had `shards`; `begun` and `suspects` are what its marks say.

        Without marks (its node is gone) both are empty, and nobody is blamed.
        """
        lost = set(shards)
        hit = lost & set(begun)
        for shard in sorted(lost - hit, reverse=True):
            self.returned(shard)
        self._out -= hit
        kept = []
        for shard in sorted(hit):
            self._ledger.lost(shard, plan_digest(self._load(shard).entries))
            self._deaths[shard] = self._deaths.get(shard, 0) + 1
            if self._deaths[shard] > DEATHS_PER_ATTEMPT * self._max_attempts:
                self.failures[shard] = _too_many_deaths(shard, self._deaths[shard])
            else:
                kept.append(shard)
        self._hold(tuple(kept), [place for place in suspects if place[0] in kept])

    def failed(self, shards: Iterable[int], error: DyntokError) -> None:
        """A process could not go on with `shards`, for a reason that is not in a video."""
        for shard in sorted(shards, reverse=True):
            self._out.discard(shard)
            self._errors[shard] = self._errors.get(shard, 0) + 1
            if self._errors[shard] >= self._max_attempts:
                self.failures[shard] = error
            else:
                self._pending.appendleft(shard)

    def take_probe(self) -> Probe | None:
        """The next video to encode alone; its inquest waits for `probed`."""
        for number, inquest in self._inquests.items():
            if not inquest.running:
                inquest.running = True
                shard, position = inquest.suspects[0]
                return Probe(number, self._load(shard).entries[position])
        return None

    def put_back(self, probe: Probe) -> None:
        """A probe has no outcome, as when its node is gone."""
        self._inquests[probe.inquest].running = False

    def probe_failed(self, probe: Probe, error: DyntokError) -> None:
        """A probe could not be made, for a reason that is not in the video."""
        self.failed(self._inquests.pop(probe.inquest).shards, error)

    def probed(self, probe: Probe, *, died: bool) -> bool:
        """What came of a probe: it killed its process, or survived. Returns whether it is quarantined now."""
        inquest = self._inquests[probe.inquest]
        inquest.running = False
        quarantined = died and self._ledger.died_alone(probe.place)
        if not died:
            self._ledger.survived(probe.place)
            inquest.suspects.popleft()
        if quarantined:
            # It explains this death. Were there another like it, it would have a death of its own.
            for shard in inquest.shards:
                self._deaths.pop(shard, None)
            inquest.suspects.clear()
        if not inquest.suspects:
            del self._inquests[probe.inquest]
            self._pending.extendleft(reversed(inquest.shards))
        return quarantined

    def _hold(self, shards: tuple[int, ...], suspects: Sequence[Place]) -> None:
        """Keep shards until their suspects are probed."""
        if not suspects:
            self._pending.extendleft(reversed(shards))
            return
        self._inquests[self._inquests_held] = _Inquest(shards, deque(suspects))
        self._inquests_held += 1


def _too_many_deaths(shard: int, deaths: int) -> RunError:
    return RunError(
        f"shard {shard} lost its process {deaths} times, and no video of it kills one alone",
        hint="memory is the usual reason: try fewer decode processes or actors; logs/shards/ has what they said",
    )
