"""Hashing beside the writing gives hashlib's digests."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from dyntok.store.hashing import BesideSha256

LARGE = 2**20


def piece(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("sizes", [[], [5], [LARGE], [LARGE, 3, LARGE, LARGE, 0, 7], [1, LARGE]])
def test_pieces_of_any_size_come_in_order(sizes: list[int]) -> None:
    pieces = [piece(seed, size) for seed, size in enumerate(sizes)]
    sha = BesideSha256()
    for data in pieces:
        sha.update(memoryview(data))
    assert sha.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
    sha.close()
    assert sha.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_what_came_after_a_state_is_forgotten_more_than_once() -> None:
    sha = BesideSha256()
    sha.update(piece(0, LARGE))
    state = sha.state()
    for _ in range(2):
        sha.update(piece(1, LARGE))
        sha.restore(state)
    sha.update(b"end")
    assert sha.hexdigest() == hashlib.sha256(piece(0, LARGE) + b"end").hexdigest()
    sha.close()


def test_only_large_pieces_start_a_thread_and_close_ends_it() -> None:
    before = set(threading.enumerate())

    def threads() -> int:
        return len(set(threading.enumerate()) - before)

    sha = BesideSha256()
    sha.update(b"small")
    assert threads() == 0
    sha.update(piece(0, LARGE))
    assert threads() == 1
    sha.close()
    assert threads() == 0
