"""The order of an epoch: a function of seed, epoch and position, the same on every machine and in every version.

Shards are shuffled, cut into windows, and the items of a window are shuffled among each other: what is read together
lies together, and no more than one window's permutation is in memory.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import xxhash

Int64 = npt.NDArray[np.int64]

_KEPT_WINDOWS = 2
# Constants of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
_GAMMA, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class EpochOrder:
    """Which item stands at which position of one epoch.

    Args:
        counts: `[S]` items of each shard; items are numbered shard by shard.
        key: from `order_key`; None leaves the items in their order.
        window: shards whose items are mixed.
    """

    def __init__(self, counts: Int64, key: int | None, window: int) -> None:
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._key = key
        self._window = window
        shards = np.arange(len(counts)) if key is None else permutation(len(counts), key)
        self._shards = shards
        per_window = np.add.reduceat(counts[shards], np.arange(0, len(counts), window)) if len(counts) else counts
        self._splits = np.concatenate([[0], np.cumsum(per_window)]).astype(np.int64)
        self._cached: OrderedDict[int, Int64] = OrderedDict()

    def __len__(self) -> int:
        return int(self._first[-1])

    def item(self, position: int) -> int:
        """The item at `position`, 0 .. len - 1. Raises IndexError outside."""
        if not 0 <= position < len(self):
            raise IndexError(f"an epoch has positions 0 to {len(self) - 1}, asked for {position}")
        if self._key is None:
            return position
        number = int(np.searchsorted(self._splits, position, side="right")) - 1
        return int(self._items(number)[position - self._splits[number]])

    def _items(self, number: int) -> Int64:
        if number not in self._cached:
            shards = self._shards[number * self._window : (number + 1) * self._window]
            items = np.concatenate([np.arange(self._first[s], self._first[s + 1]) for s in shards])
            mixed = permutation(len(items), order_key(self._key, "window", number))
            self._cached[number] = items[mixed]
            if len(self._cached) > _KEPT_WINDOWS:
                self._cached.popitem(last=False)
        self._cached.move_to_end(number)
        return self._cached[number]


def order_key(*parts: object) -> int:
    """A 64-bit key of the parts (XXH3 of their text)."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def permutation(count: int, key: int) -> Int64:
    """`[count]` int64, a permutation that `key` decides: numbers sorted by their hash.

    numpy's own generators may change their streams between releases, which would end a run that is resumed.
    """
    with np.errstate(over="ignore"):
        value = np.uint64(key) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _GAMMA
        value = (value ^ (value >> np.uint64(30))) * _MIX_1
        value = (value ^ (value >> np.uint64(27))) * _MIX_2
        value ^= value >> np.uint64(31)
    return np.argsort(value, kind="stable").astype(np.int64)


def draw(options: tuple[float, ...], *parts: object) -> float:
    """One of `options`, decided by the parts."""
    return options[order_key("draw", *parts) % len(options)]
