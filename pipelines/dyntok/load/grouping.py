"""Which sequences share a batch, from their lengths alone."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of at most `capacity` in total: best fit, longest first (Johnson 1974: within 11/9 of the fewest bins).

    Returns:
        Places in `lengths`, rising within a bin; every place once. A length above `capacity` is alone in its bin.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (space left, bin), rising
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        fit = bisect_left(room, (length, 0))
        if fit < len(room):
            left, number = room.pop(fit)
            bins[number].append(place)
        else:
            left, number = capacity, len(bins)
            bins.append([place])
        if left > length:
            insort(room, (left - length, number))
    return [sorted(members) for members in bins]


def pad_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Groups of alike lengths, each of at most `capacity` when padded to its longest; as `pack_lengths` returns."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        # The first of a group is its longest.
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= capacity:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [sorted(members) for members in groups]
