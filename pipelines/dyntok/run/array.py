"""Job arrays: one store written by several processes or machines, each with its own share of the shards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyntok.errors import UsageError
from dyntok.store import StoreRoot
from dyntok.store.names import SCRATCH_FOLDER
from dyntok.store.root import explain_os_error

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
        """`job-00003-of-00016`, as it stands in file names."""
        return f"job-{self.index:05d}-of-{self.count:05d}"

    def shards(self, numbers: Iterable[int]) -> list[int]:
        """Its share of the shards."""
        return [number for number in numbers if number % self.count == self.index]

    def __str__(self) -> str:
        return f"job {self.index} of {self.count}"


class JobRoot(StoreRoot):
    """The store as one job of an array writes it: with scratch space of its own, so that cleaning it spares the
    other jobs' files."""

    job: ArrayJob

    @classmethod
    def of(cls, url: str | os.PathLike[str], job: ArrayJob) -> JobRoot:
        """The store at `url`, made if it is missing."""
        root = cls.open(url, create=True)
        if not isinstance(root, JobRoot):
            raise TypeError("StoreRoot.open made another class")
        root.job = job
        return root

    def __reduce__(self) -> tuple[Any, ...]:
        return JobRoot.of, (self.url, self.job)

    def scratch_dir(self) -> Path:
        shared = super().scratch_dir()
        if not self.is_local:
            return shared
        with explain_os_error(self.where(SCRATCH_FOLDER), "make"):
            own = shared / self.job.name
            own.mkdir(exist_ok=True)
        return own

    def clear_scratch(self) -> None:
        """Delete what an earlier run of this job left behind. Only for the process that holds the job's lock."""
        if not self.is_local:
            return super().clear_scratch()
        with explain_os_error(self.where(SCRATCH_FOLDER), "remove"):
            own = super().scratch_dir() / self.job.name
            if own.is_dir():
                shutil.rmtree(own)
        return None


def open_root(url: str | os.PathLike[str], job: ArrayJob | None) -> StoreRoot:
    """The root of a store that is to be written, by a whole run or by one job."""
    return StoreRoot.open(url, create=True) if job is None else JobRoot.of(url, job)
