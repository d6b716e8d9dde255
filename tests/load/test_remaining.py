"""Every sample of an epoch is seen exactly once, whoever reads it and whenever that changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data._utils.worker import WorkerInfo

from dyntok.errors import UsageError
from dyntok.load import cursor as cursor_module
from dyntok.load.cursor import Cursor
from dyntok.load.remaining import Remaining, SeenSteps, Share, find_states, left_by

SHARES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def as_worker(number: int, workers: int) -> Any:
    info = WorkerInfo(id=number, num_workers=workers, seed=0, dataset=None)
    return patch.object(cursor_module, "get_worker_info", lambda: info)


@given(length=st.integers(0, 60), split=SHARES)
def test_a_line_is_dealt_out_without_loss_or_repeat(length: int, split: tuple[int, int, int]) -> None:
    ranks, workers, block = split
    places: list[int] = []
    for rank in range(ranks):
        own_rank = Share(rank, ranks, 0, 1, block)
        of_rank = [own_rank.place(step) for step in range(own_rank.steps(length))]
        of_workers: list[int] = []
        for worker in range(workers):
            share = Share(rank, ranks, worker, workers, block)
            own = [share.place(step) for step in range(share.steps(length))]
            assert own == sorted(own)
            assert [share.step(place) for place in own] == list(range(len(own)))
            assert all(share.step(place) is None for place in set(range(length)) - set(own))
            of_workers += own
        assert sorted(of_workers) == of_rank
        places += of_rank
    assert sorted(places) == list(range(length))


@given(total=st.integers(0, 40), data=st.data())
def test_a_line_with_gaps_is_walked_in_order(total: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, total))
    pending = tuple(sorted(data.draw(st.sets(st.integers(0, start - 1)) if start else st.just(set()))))
    line = Remaining(total, start, pending)
    expected = [*pending, *range(start, total)]
    assert [line.position(place) for place in range(len(line))] == expected
    assert [line.place(position) for position in expected] == list(range(len(line)))
    assert all(line.place(position) is None for position in set(range(total)) - set(expected))


class Readers:
    """All ranks and workers of a run, each a cursor of its own, read in any interleaving."""

    def __init__(self, total: int, split: tuple[int, int, int]) -> None:
        self.ranks, self.workers, block = split
        self.cursors = {
            (rank, worker): Cursor("d", total, Share(rank, self.ranks, block=block), even=False)
            for rank in range(self.ranks)
            for worker in range(self.workers)
        }

    def load(self, saved: object) -> None:
        for key in self.cursors:
            with as_worker(key[1], self.workers):
                self.cursors[key].load_state_dict(saved)

    def read(self, order: list[int], limit: int | None) -> tuple[list[int], list[dict[str, Any]]]:
        """Positions seen and everyone's states after `limit` samples, taking turns as `order` says."""
        steps: dict[tuple[int, int], Iterator[int]] = {}
        for key, cursor in self.cursors.items():
            with as_worker(key[1], self.workers):
                steps[key] = iter([step for step in cursor.begin() if not cursor.is_seen(step)])
        seen: list[int] = []
        keys, turn = sorted(self.cursors), 0
        while keys and (limit is None or len(seen) < limit):
            key = keys[order[turn % len(order)] % len(keys)] if order else keys[0]
            turn += 1
            step = next(steps[key], None)
            if step is None:
                keys.remove(key)
                continue
            with as_worker(key[1], self.workers):
                seen.append(self.cursors[key].position(step))
                self.cursors[key].seen(step)
        states = []
        for key, cursor in self.cursors.items():
            with as_worker(key[1], self.workers):
                states.append(json.loads(json.dumps(cursor.state_dict())))
        return seen, states


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(0, 50),
    splits=st.lists(SHARES, min_size=1, max_size=4),
    stops=st.lists(st.integers(0, 25), min_size=3, max_size=3),
    order=st.lists(st.integers(0, 15), max_size=12),
)
def test_any_ranks_workers_and_stops_see_every_sample_once(
    total: int, splits: list[tuple[int, int, int]], stops: list[int], order: list[int]
) -> None:
    seen: list[int] = []
    states: list[dict[str, Any]] | None = None
    for number, split in enumerate(splits):
        readers = Readers(total, split)
        if states is not None:
            # Nested as launchers and loaders nest them.
            readers.load({"ranks": [{"worker": state} for state in states]})
        new, states = readers.read(order, stops[number] if number < len(splits) - 1 else None)
        seen += new
    assert sorted(seen) == list(range(total))


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 40),
    block=st.integers(1, 3),
    ranks=st.integers(1, 3),
    runs=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12)), min_size=1, max_size=4),
)
def test_marks_in_the_training_process_resume_with_other_workers_in_the_same_order(
    total: int, block: int, ranks: int, runs: list[tuple[int, int]]
) -> None:
    """Each rank marks a few batches, though its workers read ahead, and goes on with other workers, again and again."""
    seen: list[int] = []
    for rank in range(ranks):
        share = Share(rank, ranks, block=block)
        expected = batches_of(Cursor("d", total, share, even=False), 1)
        state = Cursor("d", total, share, even=False).state_dict()
        for workers, used in runs:
            training = Cursor("d", total, share, even=False)
            training.load_state_dict(json.loads(json.dumps(state)))
            batches = batches_of(training, workers)
            assert batches == expected
            for batch in batches[:used]:
                training.mark(batch)
            seen += [position for batch in batches[:used] for position in batch]
            expected, state = expected[used:], training.state_dict()
        seen += [position for batch in expected for position in batch]
    assert sorted(seen) == list(range(total))


def batches_of(template: Cursor, workers: int) -> list[list[int]]:
    """What a loader with so many workers gives: a block from each in turn, until all have ended."""
    queues: list[list[list[int]]] = []
    for number in range(workers):
        cursor = Cursor("d", template._total, template.rank_share, even=False)
        if template._loaded is not None:
            cursor.load_state_dict(template.state_dict())
        with as_worker(number, workers):
            own = [cursor.position(step) for step in cursor.begin() if not cursor.is_seen(step)]
        block = template.rank_share.block
        queues.append([own[at : at + block] for at in range(0, len(own), block)])
    out: list[list[int]] = []
    while any(queues):
        out += [queue.pop(0) for queue in queues if queue]
    return out


def test_states_of_several_moments_or_too_few_readers_are_refused() -> None:
    whole = Readers(20, (2, 2, 1))
    _, states = whole.read([0, 1, 2, 3], 8)
    fresh = Cursor("d", 20, Share(0, 3), even=False)
    with pytest.raises(UsageError, match="rank 1, worker 1 is missing"):
        fresh.load_state_dict(states[:3])
    with pytest.raises(UsageError, match="different runs"):
        fresh.load_state_dict([*states[:3], {**states[3], "epoch": 1}])
    with pytest.raises(UsageError, match="different runs"):
        fresh.load_state_dict([*states, states[0]])
    with pytest.raises(UsageError, match="another dataset"):
        fresh.load_state_dict({**states[0], "dataset": "e"})
    with pytest.raises(UsageError, match="no stream's state"):
        fresh.load_state_dict({"optimizer": {}})
    with pytest.raises(UsageError, match="version 9"):
        fresh.load_state_dict({**states[0], "dyntok_stream": 9})
    with pytest.raises(UsageError, match="malformed"):
        fresh.load_state_dict({**states[0], "prefix": "x"})


def test_a_training_process_that_marked_nothing_does_not_claim_to_know() -> None:
    training = Cursor("d", 10, Share(), even=False)
    with as_worker(0, 1):
        training.seen(training.begin()[0])
    with pytest.raises(UsageError, match="which were used") as caught:
        training.state_dict()
    assert "mark" in str(caught.value.hint)


def test_marks_must_be_of_this_rank_and_once() -> None:
    cursor = Cursor("d", 10, Share(1, 2), even=False)
    cursor.mark([1, 3])
    with pytest.raises(UsageError, match="before in epoch 0"):
        cursor.mark([3])
    with pytest.raises(UsageError, match="not one of rank 1"):
        cursor.mark([4])
    with pytest.raises(UsageError, match="no `position`"):
        cursor.mark({"input_ids": 1})
    cursor.set_epoch(1)
    cursor.mark(3)
    assert cursor.state_dict()["epoch"] == 1


def test_the_present_epoch_keeps_its_place_and_another_begins_anew() -> None:
    cursor = Cursor("d", 6, Share(), even=False)
    cursor.mark([0, 1])
    saved = cursor.state_dict()
    resumed = Cursor("d", 6, Share(), even=False)
    resumed.load_state_dict(saved)
    resumed.set_epoch(0)
    assert [step for step in resumed.begin() if not resumed.is_seen(step)] == [2, 3, 4, 5]
    # Iterated again, it is the whole epoch, as a loop over evaluations expects.
    assert [step for step in resumed.begin() if not resumed.is_seen(step)] == [0, 1, 2, 3, 4, 5]
    resumed.load_state_dict(saved)
    resumed.set_epoch(3)
    assert not any(resumed.is_seen(step) for step in resumed.begin())


def test_a_worker_that_stays_alive_reports_the_epoch_that_is_next() -> None:
    training = Cursor("d", 4, Share(), even=False)
    worker = copy.copy(training)  # shares what processes share
    with as_worker(0, 1):
        for step in worker.begin():
            worker.seen(step)
        training.set_epoch(1)
        state = worker.state_dict()
    assert (state["epoch"], state["prefix"], state["extras"]) == (1, 0, [])


@given(total=st.integers(0, 50), ranks=st.integers(1, 5), block=st.integers(1, 4))
def test_even_ranks_get_equally_many_and_lose_less_than_a_round(total: int, ranks: int, block: int) -> None:
    sizes = [len(Cursor("d", total, Share(rank, ranks, block=block), even=True).begin()) for rank in range(ranks)]
    assert len(set(sizes)) == 1
    assert total - ranks * block < sum(sizes) <= total


def test_a_state_stays_small_however_far_the_epoch_is() -> None:
    seen = SeenSteps()
    for step in range(10_000):
        seen.add(step ^ 1)
    assert (seen.prefix, seen.extras) == (10_000, set())
    states = [Readers(10_000, (4, 2, 1)).read(list(range(8)), 5000)[1]]
    line = left_by(find_states(states))
    assert len(line.pending) < 16
    assert len(line) == 5000
