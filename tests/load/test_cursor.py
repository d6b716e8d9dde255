"""What a cursor takes and answers at its edges."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.data._utils.worker import WorkerInfo

from dyntok.errors import UsageError
from dyntok.load import cursor as cursor_module
from dyntok.load.cursor import Cursor, Remaining, Share, find_states, left_by


def as_worker(number: int, workers: int) -> Any:
    info = WorkerInfo(id=number, num_workers=workers, seed=0, dataset=None)
    return patch.object(cursor_module, "get_worker_info", lambda: info)


def test_marks_are_positions_in_any_form() -> None:
    cursor = Cursor("d", 10, Share(), even=False)
    cursor.mark({"position": torch.tensor([[0], [1]]), "input_ids": torch.zeros(2, 3)})
    cursor.mark([2, 3])
    cursor.mark(torch.tensor(4))
    cursor.mark(5)
    state = cursor.state_dict()
    assert (state["prefix"], state["extras"], state["turn"]) == (6, [], 4)


@pytest.mark.parametrize("position", [-1, 10, 99])
def test_marks_outside_the_epoch_are_refused(position: int) -> None:
    with pytest.raises(UsageError, match=f"position {position} is not one of rank 0 in epoch 0"):
        Cursor("d", 10, Share(), even=False).mark([position])


def test_marks_of_what_was_seen_before_a_resumption_are_refused() -> None:
    before = Cursor("d", 10, Share(0, 1), even=False)
    before.mark([0, 1, 2, 5])
    resumed = Cursor("d", 10, Share(0, 2), even=False)
    resumed.load_state_dict(before.state_dict())
    with pytest.raises(UsageError, match="position 5 is not one of rank 0"):
        resumed.mark([5])


def test_another_epoch_is_read_from_its_beginning() -> None:
    cursor = Cursor("d", 4, Share(), even=False)
    assert (cursor.epoch, cursor.reading) == (0, 0)
    cursor.mark([0, 1])
    cursor.set_epoch(3)
    assert (cursor.epoch, cursor.reading) == (3, 3)
    assert [cursor.position(step) for step in cursor.begin() if not cursor.is_seen(step)] == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="count from 0, got -1"):
        cursor.set_epoch(-1)


def test_the_end_of_a_line_is_not_in_it() -> None:
    line = Remaining(10, 4, (1, 3))
    assert [line.place(position) for position in (-1, 0, 1, 2, 3, 4, 9, 10)] == [
        None,
        None,
        0,
        None,
        1,
        2,
        7,
        None,
    ]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_leave_out_what_their_rank_marked_ahead(workers: int) -> None:
    before = Cursor("d", 10, Share(), even=False)
    before.mark([0, 1, 5, 8])
    left: list[int] = []
    for number in range(workers):
        resumed = Cursor("d", 10, Share(), even=False)
        resumed.load_state_dict(before.state_dict())
        with as_worker(number, workers):
            left += [resumed.position(step) for step in resumed.begin() if not resumed.is_seen(step)]
    assert sorted(left) == [2, 3, 4, 6, 7, 9]


@pytest.mark.parametrize("block", [1, 2])
def test_readers_that_stopped_together_leave_one_piece(block: int) -> None:
    states = []
    for rank in range(2):
        cursor = Cursor("d", 20, Share(rank, 2, block=block), even=False)
        for step in cursor.begin()[:4]:
            cursor.seen(step)
        states.append(cursor.state_dict())
    assert left_by(find_states(states)) == Remaining(20, 8, ())


def test_what_is_ahead_of_the_slowest_reader_is_kept_apart() -> None:
    cursors = [Cursor("d", 20, Share(rank, 2), even=False) for rank in range(2)]
    for cursor, steps in zip(cursors, ([0, 1, 4], [0]), strict=True):
        cursor.begin()
        for step in steps:
            cursor.seen(step)
    line = left_by(find_states([cursor.state_dict() for cursor in cursors]))
    # Rank 0 saw 0, 2 and 8, rank 1 saw 1.
    assert line == Remaining(20, 10, (3, 4, 5, 6, 7, 9))


def test_marks_beyond_a_gap_stay_marked_after_a_resumption() -> None:
    before = Cursor("d", 10, Share(), even=False)
    before.mark([0, 1, 5])
    resumed = Cursor("d", 10, Share(), even=False)
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert resumed.state_dict() == before.state_dict()
    resumed.mark([2])
    state = resumed.state_dict()
    assert (state["prefix"], state["extras"]) == (3, [5])
    with pytest.raises(UsageError, match="5 was marked before"):
        resumed.mark([5])


def test_a_worker_whose_epoch_is_over_reports_the_whole_of_the_next() -> None:
    training = Cursor("d", 4, Share(), even=False)
    worker = copy.copy(training)  # shares what processes share
    with as_worker(0, 1):
        for step in worker.begin():
            worker.seen(step)
        training.set_epoch(1)
        state = worker.state_dict()
    assert state == training.state_dict()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("taken_by", [0, 1])
def test_a_workers_own_state_goes_on_in_its_place_in_any_worker(number: int, taken_by: int) -> None:
    """As StatefulDataLoader keeps and gives back states: one for each worker, to workers of the same number."""
    share = Share(1, 2, block=2)
    before = Cursor("d", 32, share, even=False)
    with as_worker(number, 2):
        positions = [before.position(step) for step in before.begin()]
        for step in (0, 1, 3):
            before.seen(step)
        state = json.loads(json.dumps(before.state_dict()))
    resumed = Cursor("d", 32, share, even=False)
    with as_worker(taken_by, 2):
        resumed.load_state_dict(state)
        left = [resumed.position(step) for step in resumed.begin() if not resumed.is_seen(step)]
        assert resumed.share == Share(1, 2, number, 2, 2)
        assert resumed.state_dict() == state
    assert left == [positions[2], *positions[4:]]


def test_one_workers_state_is_not_that_of_others() -> None:
    before = Cursor("d", 32, Share(1, 2), even=False)
    with as_worker(0, 2):
        before.seen(before.begin()[0])
        state = before.state_dict()
    here = Cursor("d", 32, Share(1, 2), even=False)
    other_rank = Cursor("d", 32, Share(0, 2), even=False)
    with pytest.raises(UsageError, match="is missing"):
        here.load_state_dict(state)
    with as_worker(0, 3), pytest.raises(UsageError, match="is missing"):
        here.load_state_dict(state)
    with as_worker(0, 2), pytest.raises(UsageError, match="is missing"):
        other_rank.load_state_dict(state)


def test_marks_say_which_of_the_workers_samples_were_used() -> None:
    training = Cursor("d", 10, Share(), even=False)
    worker = copy.copy(training)  # shares what processes share
    with as_worker(0, 1):
        for step in worker.begin()[:4]:
            worker.seen(step)
    with pytest.raises(UsageError, match="which were used"):
        training.state_dict()
    training.mark([0, 1])
    assert training.state_dict()["prefix"] == 2


def test_a_worker_has_its_part_before_it_begins() -> None:
    cursor = Cursor("d", 10, Share(1, 3, block=2), even=False)
    with as_worker(1, 4):
        assert cursor.share == Share(1, 3, 1, 4, 2)
        assert cursor.state_dict()["share"] == [1, 3, 1, 4, 2]
    assert cursor.share == Share(1, 3, 0, 1, 2)


def test_epochs_of_any_number_are_whole_numbers() -> None:
    cursor = Cursor("d", 10, Share(), even=False)
    cursor.set_epoch(2**40 + 1)
    assert cursor.epoch == cursor.reading == cursor.state_dict()["epoch"] == 2**40 + 1


@pytest.mark.parametrize(
    ("rank", "ranks", "worker", "workers", "block"),
    [(-1, 2, 0, 1, 1), (2, 2, 0, 1, 1), (0, 1, -1, 1, 1), (0, 1, 3, 3, 1), (0, 1, 0, 1, 0), (0, 0, 0, 1, 1)],
)
def test_parts_that_cannot_be_are_refused(rank: int, ranks: int, worker: int, workers: int, block: int) -> None:
    with pytest.raises(UsageError, match="no such part"):
        Share(rank, ranks, worker, workers, block)


def test_a_reader_without_a_block_has_no_steps() -> None:
    for length, block, ranks in itertools.product(range(12), range(1, 4), range(1, 5)):
        steps = [Share(rank, ranks, block=block).steps(length) for rank in range(ranks)]
        assert min(steps) >= 0
        assert sum(steps) == length
