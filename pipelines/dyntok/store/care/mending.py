"""A file of which one byte has changed, found again by trial against its digest.

Disks and memory flip single bits. For small files that are nowhere else in the store (dataset.json, a short plan,
the row marker) trying them all takes seconds, and sha256 proves the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dyntok.records import FileDigest

# Trials cost so many bytes of hashing at most, some ten seconds: flipped bits are found in files of up to 30 KB,
# other changes of a byte in files of up to 5 KB.
_BUDGET_BYTES = 4 * 10**9
_BITS = tuple(1 << bit for bit in range(8))
_OTHERS = tuple(change for change in range(1, 256) if change not in _BITS)


def one_byte_off(data: bytes, wanted: FileDigest) -> bytes | None:
    """The content that has the digest `wanted` and differs from `data` in one byte.

    None if there is none, or if looking for it would take too long.
    """
    if len(data) != wanted.bytes:
        return None
    budget = _BUDGET_BYTES
    for changes in (_BITS, _OTHERS):
        budget -= len(changes) * len(data) * (len(data) + 1) // 2
        if budget < 0:
            return None
        found = _search(data, bytes.fromhex(wanted.sha256), changes)
        if found is not None:
            return found
    return None


def _search(data: bytes, wanted: bytes, changes: Iterable[int]) -> bytes | None:
    before = hashlib.sha256()
    for position, value in enumerate(data):
        rest = data[position + 1 :]
        for change in changes:
            trial = before.copy()
            trial.update(bytes((value ^ change,)) + rest)
            if trial.digest() == wanted:
                return data[:position] + bytes((value ^ change,)) + rest
        before.update(data[position : position + 1])
    return None
