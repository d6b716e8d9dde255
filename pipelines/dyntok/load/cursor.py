"""Where a stream stands in its epoch, in the training process and in a loader's workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dyntok.errors import UsageError
from dyntok.load.remaining import Remaining, SeenSteps, Share, StreamState, find_states, left_by


class Cursor:
    """One rank's place in an epoch, and in a loader's worker that worker's.

    Copies of it in the workers count what they hand out. The one in the training process learns from `mark` what was
    used; it sees only the epoch, and whether anything was handed out, through shared memory.

    Args:
        dataset: identifies the samples and their order; a state of another one is refused.
        total: samples of an epoch, over all ranks.
        rank_share: the rank's part.
        even: leave out the last positions that would give some ranks more than others.
    """

    def __init__(self, dataset: str, total: int, rank_share: Share, even: bool) -> None:
        self._dataset, self._total, self._even = dataset, total, even
        self.rank_share = rank_share
        self._epoch = 0
        self._remaining = Remaining(total)
        self._seen_steps = SeenSteps()
        self._loaded: StreamState | None = None
        self._marked = False
        self._turn = 0
        self._place_taken: int | None = None
        # The epoch that is to be read, and how many samples workers handed out in it.
        self._shared: Tensor = torch.zeros(2, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch that the next reading goes through."""
        return int(self._shared[0])

    @property
    def reading(self) -> int:
        """The epoch that is being read."""
        return self._epoch

    @property
    def share(self) -> Share:
        """The part of this process: of its rank, and in a loader's worker of this worker."""
        rank, worker = self.rank_share, get_worker_info()
        if worker is None:
            return rank
        number = (worker.id + self._turn) % worker.num_workers
        if self._place_taken is not None:
            number = self._place_taken
        return Share(rank.rank, rank.ranks, number, worker.num_workers, rank.block)

    # reading ------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch; the present one keeps its place."""
        if epoch < 0:
            raise UsageError(f"epochs count from 0, got {epoch}")
        if epoch != self.epoch:
            self._choose(epoch)
            self._begin(epoch, Remaining(self._total))

    def begin(self) -> range:
        """Go on with a loaded state, or start the epoch anew; all steps of this reader's part of it."""
        if self._loaded is not None and self._loaded.epoch == self.epoch:
            self._seen_steps = _for_share(self._loaded, self.share)
            self._loaded = None
        else:
            self._begin(self.epoch, Remaining(self._total))
        return range(self.share.steps(self._length()))

    def position(self, step: int) -> int:
        """Position in the epoch of this reader's step."""
        return self._remaining.position(self.share.place(step))

    def is_seen(self, step: int) -> bool:
        return step in self._seen_steps

    def seen(self, step: int) -> None:
        """Count a step as seen: the next `state_dict` goes on after it."""
        self._seen_steps.add(step)
        if get_worker_info() is not None:
            self._shared[1] += 1

    # state --------------------------------------------------------------------------------------------------

    def mark(self, batch: Mapping[str, Any] | Tensor | Sequence[int] | int) -> None:
        """See `Resumable.mark`."""
        if isinstance(batch, Mapping):
            if "position" not in batch:
                raise UsageError("the batch has no `position`", hint="make it with dyntok's collators")
            batch = batch["position"]
        self._loaded, self._marked = None, True
        self._turn += 1
        for position in torch.as_tensor(batch).reshape(-1).tolist():
            place = self._remaining.place(position)
            step = None if place is None else self.rank_share.step(place)
            if step is None:
                raise UsageError(
                    f"position {position} is not one of rank {self.rank_share.rank} in epoch {self._epoch}",
                    hint="mark each batch on the rank that it came to, once, and call set_epoch between epochs",
                )
            if step in self._seen_steps:
                raise UsageError(
                    f"position {position} was marked before in epoch {self._epoch}",
                    hint="call set_epoch between epochs; without workers, iterating marks by itself",
                )
            self._seen_steps.add(step)

    def state_dict(self) -> dict[str, Any]:
        """See `Resumable.state_dict`."""
        in_training = get_worker_info() is None
        if in_training and int(self._shared[1]) and not self._marked:
            raise UsageError(
                "the loader's workers handed out samples, and this process does not know which were used",
                hint="call stream.mark(batch) after each batch, or take the state of torchdata's StatefulDataLoader",
            )
        line, share, seen = self._remaining, self.share, self._seen_steps
        if self._loaded is not None:
            seen = _for_share(self._loaded, share)
        elif self._epoch != self.epoch:
            line, seen = Remaining(self._total), SeenSteps()
        return StreamState(self._dataset, self.epoch, line, share, seen, self._turn).to_json()

    def load_state_dict(self, saved: Any) -> None:
        """See `Resumable.load_state_dict`."""
        states = find_states(saved)
        if not states:
            raise UsageError("there is no stream's state in what was given", hint="give stream.state_dict()")
        if any(state.dataset != self._dataset for state in states):
            raise UsageError(
                "the state is of another dataset, seed or order",
                hint="resume with the same store, annotations, seed, shuffle and window",
            )
        state = self._own(states)
        self._choose(state.epoch)
        self._begin(state.epoch, state.remaining)
        self._seen_steps = SeenSteps(state.seen.prefix, set(state.seen.extras))
        self._loaded, self._turn = state, state.turn
        if state.share != self.rank_share:
            self._place_taken = state.share.worker

    def _own(self, states: list[StreamState]) -> StreamState:
        """This reader's state among those of one moment; where readers have changed, what all of them left."""
        rank, worker = self.rank_share, get_worker_info()
        for state in states:
            if state.share == rank:
                return state
        first = states[0]
        if worker is not None and len(states) == 1:
            by_rank = replace(first.share, worker=0, workers=1)
            if by_rank == rank and first.share.workers == worker.num_workers:
                return first
        return StreamState(self._dataset, first.epoch, left_by(states), rank, SeenSteps())

    # parts --------------------------------------------------------------------------------------------------

    def _choose(self, epoch: int) -> None:
        self._shared[0], self._shared[1] = epoch, 0

    def _begin(self, epoch: int, remaining: Remaining) -> None:
        self._epoch, self._remaining, self._seen_steps = epoch, remaining, SeenSteps()
        self._loaded, self._marked, self._turn, self._place_taken = None, False, 0, None

    def _length(self) -> int:
        whole, deal = len(self._remaining), self.rank_share.ranks * self.rank_share.block
        return whole // deal * deal if self._even else whole


class Resumable:
    """A stream that has a place in its epoch, and can go on from there: `TokenStream` and `BatchStream`."""

    cursor: Cursor

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration goes through; after `load_state_dict`, that of the state."""
        return self.cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through, in this process and in its workers."""
        self.cursor.set_epoch(epoch)

    def mark(self, batch: Mapping[str, Any] | Tensor | Sequence[int] | int) -> None:
        """Say that a batch was used, so that `state_dict` in the training process goes on after it.

        Needed where a plain DataLoader has workers, which read ahead of what was used.

        Args:
            batch: a batch of this stream's sequences (its `position`), or positions.

        Raises:
            UsageError: a position is not this rank's, or was marked before in this epoch.
        """
        self.cursor.mark(batch)

    def state_dict(self) -> dict[str, Any]:
        """Where this rank, or in a worker this worker, stands: plain values.

        Raises:
            UsageError: workers have handed out samples, and none was marked as used.
        """
        return self.cursor.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Go on where a state stopped.

        Args:
            state: a `state_dict()`; or a list of those of all ranks, to go on with another number of ranks or
                workers. States are found inside a StatefulDataLoader's own state too.

        Raises:
            UsageError: it holds no state of this dataset and seed, or those of some readers are missing.
        """
        self.cursor.load_state_dict(state)


def _for_share(state: StreamState, share: Share) -> SeenSteps:
    """The steps that a state saw, as those of `share`: its own, or a worker's part of what its rank saw."""
    if state.share == share:
        return state.seen
    seen = SeenSteps(share.steps(state.share.place(state.seen.prefix)))
    for extra in sorted(state.seen.extras):
        step = share.step(state.share.place(extra))
        if step is not None:
            seen.add(step)
    return seen
