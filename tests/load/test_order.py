"""An epoch's order is frozen: a change of it would end the runs that are resumed."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from dyntok.load.order import EpochOrder, order_key, permutation


def items(counts: list[int], key: int | None, window: int) -> list[int]:
    order = EpochOrder(np.array(counts, np.int64), key, window)
    return [order.item(position) for position in range(len(order))]


def test_windows_of_shards_have_the_order_of_every_release() -> None:
    assert items([3, 2, 4, 1, 2], 7, 2) == FROZEN_ITEMS


def test_long_permutations_are_those_of_every_release() -> None:
    """So long that hashes are alike in their first 31 bits, and the others decide."""
    found = permutation(2**18, 12345)
    assert np.array_equal(np.sort(found), np.arange(2**18))
    assert xxhash.xxh3_64_hexdigest(found.astype("<i8").tobytes()) == FROZEN_DIGEST


def test_keys_are_those_of_every_release() -> None:
    assert order_key("epoch", 3, 1) == FROZEN_KEY


def test_an_order_without_a_key_is_that_of_the_items() -> None:
    assert items([3, 2, 4], None, 2) == list(range(9))


@pytest.mark.parametrize("key", [None, 7])
def test_an_empty_store_has_an_empty_epoch(key: int | None) -> None:
    assert items([], key, 2) == []


def test_shards_may_be_empty() -> None:
    assert sorted(items([0, 3, 0, 2], 7, 1)) == list(range(5))


@pytest.mark.parametrize("position", [-1, 9])
def test_positions_outside_an_epoch_are_refused(position: int) -> None:
    with pytest.raises(IndexError, match=f"0 to 8, asked for {position}"):
        EpochOrder(np.array([3, 2, 4]), 7, 2).item(position)


FROZEN_ITEMS = [0, 2, 1, 4, 3, 11, 9, 10, 7, 5, 8, 6]
FROZEN_DIGEST = "cc42c6068fbfbfe8"
FROZEN_KEY = 4281685430464327662
