"""Sums over videos."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
MICROSECONDS = 1_000_000
TOKENS_PREFIX = "tokens_"


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
    def of(cls, columns: dict[str, npt.NDArray[Any]], names: tuple[str, ...], chosen: Mask) -> Totals:
        """Of the chosen rows of `index.parquet`; `names` are those of its thresholds."""
        done = columns["done"] & chosen
        sums = {name: int(columns[name][done].sum()) for name in ("frames", "patches", "nbytes")}
        return cls(
            videos=int(chosen.sum()),
            done=int(done.sum()),
            failed=int((columns["failed"] & chosen).sum()),
            pending=int((columns["pending"] & chosen).sum()),
            microseconds=int(columns["microseconds"][done].sum()),
            tokens=tuple(int(columns[TOKENS_PREFIX + name][done].sum()) for name in names),
            **sums,
        )

    def __add__(self, other: Totals) -> Totals:
        sums = {
            f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.type == "int"
        }
        tokens = tuple(a + b for a, b in zip(self.tokens, other.tokens, strict=True))
        return Totals(tokens=tokens, **sums)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Sums, seconds, and the share of the patches that is kept at each threshold (null without patches)."""
        kept = [tokens / self.patches if self.patches else None for tokens in self.tokens]
        return {
            "videos": self.videos,
            "done": self.done,
            "failed": self.failed,
            "pending": self.pending,
            "frames": self.frames,
            "seconds": self.microseconds / MICROSECONDS,
            "patches": self.patches,
            "bytes": self.nbytes,
            "tokens": dict(zip(names, self.tokens, strict=True)),
            "kept": dict(zip(names, kept, strict=True)),
        }
