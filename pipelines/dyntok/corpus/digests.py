"""Sets of ids as 128-bit digests in numpy arrays: 24 bytes an id where Python strings would take 150."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]


def digests_of(ids: Sequence[str]) -> Digests:
    """128-bit blake2b digests of ids, `[n, 2]`."""
    joined = b"".join(hashlib.blake2b(i.encode("utf-8"), digest_size=16).digest() for i in ids)
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


class DigestTable:
    """Finds the row of a digest. Of equal digests the last row counts."""

    def __init__(self, digests: Digests, rows: npt.NDArray[np.int64] | None = None) -> None:
        order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests stay in order of rows
        ordered = digests[order]
        last = np.ones(len(ordered), dtype=bool)
        last[:-1] = (ordered[1:] != ordered[:-1]).any(axis=1)
        self._digests = np.ascontiguousarray(ordered[last])
        self.rows = (order if rows is None else rows[order])[last]

    def __len__(self) -> int:
        return len(self.rows)

    def merged(self, later: DigestTable) -> DigestTable:
        """Both tables as one."""
        return DigestTable(np.concatenate([self._digests, later._digests]), np.concatenate([self.rows, later.rows]))

    def find(self, digests: Digests) -> npt.NDArray[np.int64]:
        """The row of each digest, -1 where there is none: `[n] int64`."""
        found = np.full(len(digests), -1, dtype=np.int64)
        high = self._digests[:, 0]
        at = np.searchsorted(high, digests[:, 0])
        pending = np.arange(len(digests))
        while len(pending):
            pending = pending[at[pending] < len(self)]
            pending = pending[high[at[pending]] == digests[pending, 0]]
            equal = self._digests[at[pending], 1] == digests[pending, 1]
            found[pending[equal]] = self.rows[at[pending[equal]]]
            pending = pending[~equal]
            at[pending] += 1
        return found


class SeenIds:
    """Says which ids of a batch came in an earlier one; few sorted tables of doubling size."""

    def __init__(self) -> None:
        self._tables: list[DigestTable] = []
        self._count = 0

    def add(self, digests: Digests) -> npt.NDArray[np.int64]:
        """Remember a batch; for each digest the number (counted over all batches) of its first holder, or -1."""
        earlier = np.full(len(digests), -1, dtype=np.int64)
        for table in self._tables:
            earlier = np.maximum(earlier, table.find(digests))
        table = DigestTable(digests, np.arange(self._count, self._count + len(digests)))
        self._count += len(digests)
        while self._tables and len(self._tables[-1]) <= 2 * len(table):
            table = self._tables.pop().merged(table)
        self._tables.append(table)
        return earlier
