"""Job arrays: one store written by several processes or machines, each with its own share of the shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dyntok.errors import UsageError

MOST_JOBS = 100_000


@dataclass(frozen=True, slots=True, order=True)
class ArrayJob:
    """Job `index` of `count`: it encodes the shards whose number leaves the remainder `index`.

    Raises UsageError unless `0 <= index < count`.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_JOBS:
            raise UsageError(f"{self.count} jobs are no job array", hint=f"--num-jobs lies in 1..{MOST_JOBS}")
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"there is no job {self.index} of {self.count}",
                hint=f"--job-index counts from 0 to {self.count - 1}; in Slurm, say --array=0-{self.count - 1}",
            )

    @property
    def name(self) -> str:
        """`job-00003-of-00016`, as it stands in file names; its scratch folder has this name too."""
        return f"job-{self.index:05d}-of-{self.count:05d}"

    def shards(self, numbers: Iterable[int]) -> list[int]:
        """Its share of the shards."""
        return [number for number in numbers if number % self.count == self.index]

    def __str__(self) -> str:
        return f"job {self.index} of {self.count}"
