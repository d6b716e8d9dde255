"""Token chunks of videos that are not complete yet: in memory while they are small, on disk beyond."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from dyntok.store.root import explain_os_error

CHUNK_BYTES = 8 * 2**20


class SpoolBudget:
    """Bytes that all spools of a run may hold in memory together."""

    def __init__(self, total_bytes: int = 256 * 2**20, each_bytes: int = 16 * 2**20) -> None:
        self.each_bytes = each_bytes
        self._free = total_bytes
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        with self._lock:
            if nbytes > self._free:
                return False
            self._free -= nbytes
            return True

    def give_back(self, nbytes: int) -> None:
        with self._lock:
            self._free += nbytes


class TokenSpool:
    """Rows of one `[N, D]` array, appended in order and read back once. Not thread-safe.

    `scratch` is the folder for the spill file; the file has no name there, so a killed run leaves nothing.
    """

    def __init__(self, scratch: Path, budget: SpoolBudget) -> None:
        self._scratch = scratch
        self._budget = budget
        self._chunks: list[npt.NDArray[Any]] = []
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._dtype: np.dtype[Any] | None = None
        self._dim = 0
        self.rows = 0

    def append(self, chunk: npt.NDArray[Any], *, keep: bool = False) -> None:
        """Add `chunk: [n, D]`: a copy, or with `keep` itself, which nobody may change then.

        Raises StoreError when the disk is full.
        """
        self._dtype, self._dim = chunk.dtype, chunk.shape[1]
        self.rows += len(chunk)
        if self._file is None:
            fits = self._held_bytes + chunk.nbytes <= self._budget.each_bytes
            if fits and self._budget.take(chunk.nbytes):
                self._chunks.append(chunk if keep else chunk.copy())
                self._held_bytes += chunk.nbytes
                return
            self._spill()
        with explain_os_error(str(self._scratch), "write to"):
            self._write(chunk)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """The rows in order, in chunks of a few MiB; frees what it has handed out."""
        if self._file is None:
            yield from self._chunks
        elif self._dtype is not None:
            self._file.seek(0)
            rows_per_chunk = max(1, CHUNK_BYTES // (self._dim * self._dtype.itemsize))
            left = self.rows
            while left:
                rows = min(left, rows_per_chunk)
                flat = np.fromfile(self._file, self._dtype, rows * self._dim)
                if flat.size != rows * self._dim:
                    raise OSError(f"the spool file in {self._scratch} is shorter than what was written to it")
                left -= rows
                yield flat.reshape(rows, self._dim)
        self.close()

    def close(self) -> None:
        """Free memory and disk; safe to call twice."""
        self._free()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        with explain_os_error(str(self._scratch), "write to"):
            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._scratch, prefix="spool-"))  # noqa: SIM115
            for chunk in self._chunks:
                self._write(chunk)
        self._free()

    def _free(self) -> None:
        self._chunks.clear()
        self._budget.give_back(self._held_bytes)
        self._held_bytes = 0

    def _write(self, chunk: npt.NDArray[Any]) -> None:
        if self._file is None:
            raise ValueError("the spool is closed")
        self._file.write(np.ascontiguousarray(chunk).data.cast("B"))
