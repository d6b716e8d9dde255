"""How a number is distributed over the videos: percentiles and histograms of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
_BITS = 14


def leading_bits(numbers: Integers, bits: int) -> Integers:
    """Non-negative integers below 2^53, each rounded down to so many leading bits."""
    shift = np.maximum(0, np.frexp(numbers.astype(np.float64))[1].astype(np.int64) - bits)
    rounded: Integers = (numbers >> shift) << shift
    return rounded


@dataclass(frozen=True, slots=True)
class Distribution:
    """Counts of non-negative integers, exact below 16,384 and to one part in 8,192 above.

    Attributes:
        values: `[B]` rising, each rounded down to its 14 leading bits; at most some 8,000 for each doubling.
        counts: `[B]` how many of each.
        total, least, most: sum, minimum and maximum, exact; 0 of nothing.
    """

    values: Integers
    counts: Integers
    total: int = 0
    least: int = 0
    most: int = 0

    @classmethod
    def empty(cls) -> Distribution:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of(cls, numbers: npt.NDArray[Any]) -> Distribution:
        """Of non-negative integers below 2^53."""
        if not len(numbers):
            return cls.empty()
        numbers = np.asarray(numbers, np.int64)
        values, counts = np.unique(leading_bits(numbers, _BITS), return_counts=True)
        return cls(values, counts, int(numbers.sum()), int(numbers.min()), int(numbers.max()))

    def __add__(self, other: Distribution) -> Distribution:
        if not len(self) or not len(other):
            return self if len(self) else other
        values, places = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        least, most = min(self.least, other.least), max(self.most, other.most)
        return Distribution(values, counts, self.total + other.total, least, most)

    def __len__(self) -> int:
        """How many numbers were counted."""
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """Linear between the two nearest of the sorted numbers, as numpy's. Raises ValueError of nothing."""
        if not len(self):
            raise ValueError("nothing was counted")
        rank = percent / 100 * (len(self) - 1)
        below = int(rank)
        low, high = self._ranked(below), self._ranked(min(below + 1, len(self) - 1))
        return low + (high - low) * (rank - below)

    def percentiles(self, percents: tuple[int, ...], scale: float = 1.0) -> dict[str, float]:
        """`{"p50": ...}` in other units; empty of nothing."""
        return {f"p{p}": self.percentile(p) / scale for p in percents} if len(self) else {}

    def histogram(self, edges: Integers) -> list[int]:
        """How many lie in `edges[i] <= number < edges[i + 1]`, rounded as stated above."""
        places = np.searchsorted(edges, self.values, side="right") - 1
        inside = (places >= 0) & (places < len(edges) - 1)
        counts = np.zeros(max(0, len(edges) - 1), np.int64)
        np.add.at(counts, places[inside], self.counts[inside])
        found: list[int] = counts.tolist()
        return found

    def _ranked(self, rank: int) -> float:
        if rank == 0:
            return float(self.least)
        if rank == len(self) - 1:
            return float(self.most)
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, side="right")])
