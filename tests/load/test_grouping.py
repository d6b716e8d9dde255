from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dyntok.load.grouping import pack_lengths, pad_lengths

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(lengths=LENGTHS, capacity=st.integers(50, 120))
def test_packing_loses_nothing_and_overflows_nowhere(lengths: list[int], capacity: int) -> None:
    bins = pack_lengths(lengths, capacity)
    assert sorted(place for members in bins for place in members) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in members) <= capacity for members in bins)
    assert all(members == sorted(members) for members in bins)
    # No two bins could be one: best fit would have joined the later one's first member to the other.
    sums = sorted(sum(lengths[place] for place in members) for members in bins)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


@given(lengths=LENGTHS, capacity=st.integers(50, 200))
def test_padding_groups_alike_lengths(lengths: list[int], capacity: int) -> None:
    groups = pad_lengths(lengths, capacity)
    assert sorted(place for members in groups for place in members) == list(range(len(lengths)))
    assert all(len(members) * max(lengths[place] for place in members) <= capacity for members in groups)
    spans = [(min(lengths[p] for p in members), max(lengths[p] for p in members)) for members in groups]
    assert all(low >= high for (low, _), (_, high) in pairwise(spans))


def test_what_is_too_long_is_alone() -> None:
    assert pack_lengths([5, 100, 5], 50) == [[1], [0, 2]]
    assert pad_lengths([5, 100, 5], 50) == [[1], [0, 2]]


def test_packing_is_near_the_best() -> None:
    lengths = [size for size in (60, 40, 50, 50, 70, 30, 20, 80) for _ in range(25)]
    assert len(pack_lengths(lengths, 100)) == sum(lengths) // 100


def test_a_group_is_as_full_as_the_capacity_lets_it_be() -> None:
    assert pad_lengths([5, 5, 5, 3], 10) == [[0, 1], [2, 3]]
    assert pack_lengths([5, 5, 5, 3, 2], 10) == [[0, 1], [2, 3, 4]]
