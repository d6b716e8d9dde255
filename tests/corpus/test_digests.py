"""The digest tables agree with Python's dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dyntok.corpus.digests import DigestTable, SeenIds, digests_of

small = st.tuples(st.integers(0, 3), st.integers(0, 3))  # many equal halves, many equal digests


@given(st.lists(small, max_size=40), st.lists(small, max_size=20))
def test_find(known: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    oracle = {digest: row for row, digest in enumerate(known)}
    table = DigestTable(np.array(known, dtype=np.uint64).reshape(-1, 2))
    found = table.find(np.array(asked, dtype=np.uint64).reshape(-1, 2))
    assert found.tolist() == [oracle.get(digest, -1) for digest in asked]
    assert sorted(table.rows.tolist()) == sorted(oracle.values())


@given(st.lists(st.sets(small, min_size=1, max_size=6), max_size=12))
def test_seen_in_earlier_batches(batches: list[set[tuple[int, int]]]) -> None:
    seen = SeenIds()
    holders: dict[tuple[int, int], set[int]] = {}
    number = 0
    for batch in map(sorted, batches):
        earlier = seen.add(np.array(batch, dtype=np.uint64)).tolist()
        for digest, holder in zip(batch, earlier, strict=True):
            assert (holder in holders[digest]) if digest in holders else holder == -1
        for digest in batch:
            holders.setdefault(digest, set()).add(number)
            number += 1


def test_digests_are_fixed() -> None:
    """They are not stored, but a platform where they differ would fail here first."""
    (digest,) = digests_of(["é.mp4"])
    again, other = digests_of(["é.mp4", "e.mp4"])
    assert (digest == again).all() and (digest != other).any()
