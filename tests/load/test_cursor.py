"""What a cursor takes and answers at its edges."""

from __future__ import annotations

import pytest
import torch

from dyntok.errors import UsageError
from dyntok.load.cursor import Cursor, Remaining, Share


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
