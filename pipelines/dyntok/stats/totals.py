"""Sums over videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]
MICROSECONDS = 1_000_000
TOKENS_PREFIX = "tokens_"
_STATUSES, _SUMMED = ("done", "failed", "pending"), ("frames", "microseconds", "patches", "nbytes")
_NUMBERS = ("videos", *_STATUSES, *_SUMMED)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over some videos: what is known of those that are done, and how many there are of each status.

    `nbytes` are those of the tokens; `tokens` has one sum for each configured threshold.
    """

    videos: int
    done: int
    failed: int
    pending: int
    frames: int
    microseconds: int
    patches: int
    nbytes: int
    tokens: tuple[int, ...]

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> Totals:
        """Of no video."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, (0,) * len(names))

    @classmethod
    def of(cls, columns: Columns, names: tuple[str, ...]) -> Totals:
        """Of some rows of `index.parquet`; `names` are those of its thresholds."""
        return cls.grouped(columns, names, np.zeros(len(columns["done"]), np.int64), 1)[0]

    @classmethod
    def grouped(
        cls, columns: Columns, names: tuple[str, ...], codes: npt.NDArray[np.int64], count: int
    ) -> list[Totals]:
        """Of each of `count` groups of rows; `codes` says which group a row belongs to."""

        def sums(numbers: npt.NDArray[Any], which: npt.NDArray[Any]) -> list[int]:
            found = np.zeros(count, np.int64)
            np.add.at(found, codes[which], numbers[which])
            summed: list[int] = found.tolist()
            return summed

        done = columns["done"]
        every = np.ones(len(done), np.bool_)
        found = {name: sums(columns[name], done) for name in _SUMMED}
        found |= {status: sums(every, columns[status]) for status in _STATUSES}
        found["videos"] = sums(every, every)
        tokens = [sums(columns[TOKENS_PREFIX + name], done) for name in names]
        return [
            cls(tokens=tuple(some[i] for some in tokens), **{name: some[i] for name, some in found.items()})
            for i in range(count)
        ]

    def __add__(self, other: Totals) -> Totals:
        numbers = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        tokens = tuple(a + b for a, b in zip(self.tokens, other.tokens, strict=True))
        return Totals(**numbers, tokens=tokens)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Sums, seconds, and the share of the patches that is kept at each threshold (null without patches)."""
        kept = [tokens / self.patches if self.patches else None for tokens in self.tokens]
        return {
            **{name: getattr(self, name) for name in ("videos", *_STATUSES, "frames")},
            "seconds": self.microseconds / MICROSECONDS,
            "patches": self.patches,
            "bytes": self.nbytes,
            "tokens": dict(zip(names, self.tokens, strict=True)),
            "kept": dict(zip(names, kept, strict=True)),
        }
