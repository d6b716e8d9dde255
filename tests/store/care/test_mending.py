"""One changed byte is found again, and nothing else is taken for it."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.store.care import mending
from dyntok.store.care.mending import one_byte_off
from dyntok.store.signed import digest_bytes


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=200), where=st.integers(0), change=st.integers(1, 255))
def test_any_changed_byte_is_found(data: bytes, where: int, change: int) -> None:
    damaged = bytearray(data)
    damaged[where % len(data)] ^= change
    assert one_byte_off(bytes(damaged), digest_bytes("a", data)) == data


def test_what_is_not_one_byte_off(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"0123456789"
    wanted = digest_bytes("a", data)
    for damaged in (data[:-1], data + b"0", b"", b"9" + data[1:8] + b"0" + data[9:]):
        assert one_byte_off(damaged, wanted) is None
    monkeypatch.setattr(mending, "_BUDGET_BYTES", 1)
    assert one_byte_off(b"1123456789", wanted) is None


def test_looking_ends() -> None:
    """A megabyte would take for ever, and is not begun; a flipped bit of some kilobytes is found in a second or two."""
    data = random.Random(0).randbytes(4000)
    began = time.monotonic()
    assert one_byte_off(bytes(10**6), digest_bytes("a", bytes([1]) * 10**6)) is None
    assert time.monotonic() - began < 1
    damaged = data[:3000] + bytes([data[3000] ^ 16]) + data[3001:]
    assert one_byte_off(damaged, digest_bytes("a", data)) == data
