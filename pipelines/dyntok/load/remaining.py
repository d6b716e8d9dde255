"""Which positions of an epoch were seen, by whom, and what is left when ranks or workers change.

An epoch, or what is left of one, is a line of positions cut into blocks, dealt out in turn: block k goes to rank
`k % ranks`, and there to worker `(k // ranks) % workers`. A reader's own positions, counted 0, 1, ... in its turn, are
its *steps*. A reader that stops has seen its steps below `prefix`, and a few `extras` beyond it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dyntok.errors import UsageError


@dataclass(frozen=True, slots=True)
class Remaining:
    """Positions of an epoch of `total` that are still to be seen: `pending` (rising, all below `start`), then `start`
    to the end."""

    total: int
    start: int = 0
    pending: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.pending) + self.total - self.start

    def position(self, place: int) -> int:
        """The position at `place` of the line, 0 .. len - 1."""
        early = len(self.pending)
        return self.pending[place] if place < early else self.start + place - early

    def place(self, position: int) -> int | None:
        """The inverse of `position`; None if it is not in the line."""
        if self.start <= position < self.total:
            return len(self.pending) + position - self.start
        place = bisect_left(self.pending, position)
        return place if place < len(self.pending) and self.pending[place] == position else None


@dataclass(frozen=True, slots=True)
class Share:
    """One reader's part of a line of positions: blocks of `block`, dealt to `ranks x workers`."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1
    block: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.ranks and 0 <= self.worker < self.workers and self.block > 0):
            raise UsageError(
                f"rank {self.rank} of {self.ranks}, worker {self.worker} of {self.workers}, block {self.block}: "
                "no such part",
                hint="ranks and workers count from 0, and a block holds at least one sample",
            )

    def steps(self, length: int) -> int:
        """How many places of a line of `length` belong to this reader."""
        blocks = -(-length // self.block)
        own = max(0, -(-(blocks - self._first) // self._stride))
        last_is_own = own > 0 and (blocks - 1 - self._first) % self._stride == 0
        return own * self.block - (blocks * self.block - length if last_is_own else 0)

    def place(self, step: int) -> int:
        """Place in the line of this reader's step."""
        turn, inside = divmod(step, self.block)
        return (self._first + turn * self._stride) * self.block + inside

    def step(self, place: int) -> int | None:
        """The inverse of `place`; None if the place belongs to another reader."""
        number, inside = divmod(place, self.block)
        turn, other = divmod(number - self._first, self._stride)
        return None if other or turn < 0 else turn * self.block + inside

    @property
    def _first(self) -> int:
        return self.rank + self.ranks * self.worker

    @property
    def _stride(self) -> int:
        return self.ranks * self.workers


@dataclass(slots=True)
class SeenSteps:
    """The steps that a reader has seen. Bounded by how far out of order it sees them."""

    prefix: int = 0
    extras: set[int] = field(default_factory=set)

    def __contains__(self, step: int) -> bool:
        return step < self.prefix or step in self.extras

    def add(self, step: int) -> None:
        self.extras.add(step)
        while self.prefix in self.extras:
            self.extras.remove(self.prefix)
            self.prefix += 1

    @property
    def end(self) -> int:
        """One more than the last step seen."""
        return max(self.extras, default=self.prefix - 1) + 1

    def missing(self, end: int) -> Iterator[int]:
        """Steps below `end` that were not seen."""
        return (step for step in range(self.prefix, end) if step not in self.extras)


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a reader needs to go on, as plain values; `to_json` and `from_json` are inverse.

    Attributes:
        dataset: identifies the items and the settings that decide their order.
        epoch: its number.
        remaining: the line that was dealt out.
        share: the reader's part of it.
        seen: what of that it has seen.
        turn: batches used in this line. A loader asks its workers in turn from the first, so a resumed one has its
            workers change places by as many, and the order of batches stays.
    """

    dataset: str
    epoch: int
    remaining: Remaining
    share: Share
    seen: SeenSteps
    turn: int = 0

    KEY = "dyntok_stream"
    VERSION = 1

    def to_json(self) -> dict[str, Any]:
        share, line = self.share, self.remaining
        return {
            self.KEY: self.VERSION,
            "dataset": self.dataset,
            "epoch": self.epoch,
            "total": line.total,
            "start": line.start,
            "pending": list(line.pending),
            "share": [share.rank, share.ranks, share.worker, share.workers, share.block],
            "prefix": self.seen.prefix,
            "extras": sorted(self.seen.extras),
            "turn": self.turn,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StreamState:
        """Raises UsageError if `data` is no state, or a newer dyntok's."""
        if data.get(cls.KEY) != cls.VERSION:
            raise UsageError(
                f"the stream's state is of version {data.get(cls.KEY)!r}; this dyntok reads {cls.VERSION}",
                hint="resume with the dyntok that saved it",
            )
        try:
            return cls(
                str(data["dataset"]),
                int(data["epoch"]),
                Remaining(int(data["total"]), int(data["start"]), tuple(map(int, data["pending"]))),
                Share(*map(int, data["share"])),
                SeenSteps(int(data["prefix"]), set(map(int, data["extras"]))),
                int(data["turn"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the stream's state is malformed: {error!r}") from error


def find_states(saved: Any) -> list[StreamState]:
    """Every stream's state inside nested dicts and lists, such as a list of the ranks' states or a loader's own."""
    if isinstance(saved, dict):
        if StreamState.KEY in saved:
            return [StreamState.from_json(saved)]
        saved = list(saved.values())
    if isinstance(saved, list | tuple):
        return [state for part in saved for state in find_states(part)]
    return []


def left_by(states: Sequence[StreamState]) -> Remaining:
    """What all readers of one epoch left, as a line to be dealt out anew.

    Raises:
        UsageError: the states do not belong together, or a reader's is missing.
    """
    first = states[0]
    shares = {(state.share.rank, state.share.worker) for state in states}
    alike = {(s.dataset, s.epoch, s.remaining, s.share.ranks, s.share.workers, s.share.block) for s in states}
    if len(alike) > 1 or len(shares) < len(states):
        raise UsageError("the states are of different runs, epochs or moments", hint="load those of one checkpoint")
    expected = {(r, w) for r in range(first.share.ranks) for w in range(first.share.workers)}
    if lacking := sorted(expected - shares):
        rank, worker = lacking[0]
        raise UsageError(
            f"the state of rank {rank}, worker {worker} is missing: {len(states)} of {len(expected)} are there",
            hint="gather the states of all ranks (torch.distributed.all_gather_object) and load the list",
        )
    line, block = first.remaining, first.share.block
    turns = max(-(-state.seen.end // block) for state in states)
    edge = min(len(line), turns * block * len(expected))
    places = sorted(
        state.share.place(step)
        for state in states
        for step in state.seen.missing(min(turns * block, state.share.steps(len(line))))
    )
    pending = [line.position(place) for place in places] + list(line.pending[edge:])
    return Remaining(line.total, line.start + max(0, edge - len(line.pending)), tuple(pending))
