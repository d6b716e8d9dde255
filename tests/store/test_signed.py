"""Signed JSON: the quick way to tell that a file is whole accepts what the slow way accepts, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok.errors import DamageError
from dyntok.records import PlanEntry, SourceRef
from dyntok.store import plan_digest
from dyntok.store.signed import HEAD_BYTES, canonical_json, leading_digest, sign, unsign, unsign_compact

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(content=st.dictionaries(TEXT.map(lambda name: "e" + name), JSON, min_size=1, max_size=4))
def test_the_quick_way_reads_what_was_signed(content: dict[str, object]) -> None:
    """Names behind `digest` in the order of sorting, as those of records and manifests are."""
    data = sign(content)
    quick = unsign_compact(data)
    assert quick == unsign(data, "here") == content
    assert canonical_json({**quick, "digest": leading_digest(data[:HEAD_BYTES])}) + b"\n" == data, "to the last digit"
    assert leading_digest(data[:HEAD_BYTES]) == json.loads(data)["digest"]


@given(data=st.data())
def test_no_other_byte_gets_through(data: st.DataObject) -> None:
    good = sign({"files": [], "videos": [1, 2.5, "ü"], "shard": 3})
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(bad), good[:at], good + b"\n", good.replace(b"[1,", b"[1 ,")):
        assert unsign_compact(damaged) is None
        with pytest.raises(DamageError):
            unsign(damaged, "here")


def test_what_does_not_begin_with_its_digest_takes_the_slow_way() -> None:
    data = sign({"about": "a name before `digest`"})
    assert unsign_compact(data) is None
    assert unsign(data, "here") == {"about": "a name before `digest`"}
    assert leading_digest(data[:HEAD_BYTES]) is None
    assert leading_digest(b"") is None


@given(
    video_id=TEXT,
    source=TEXT,
    size=st.none() | st.integers(0, 2**60),
    fingerprint=st.none() | TEXT,
    extra=TEXT,
    attempt=st.integers(1, 99),
)
def test_the_digest_of_plan_rows_is_that_of_their_canonical_json(
    video_id: str, source: str, size: int | None, fingerprint: str | None, extra: str, attempt: int
) -> None:
    import hashlib

    entry = PlanEntry(7, 3, video_id, source, SourceRef("/x"), size, fingerprint, extra, attempt)
    row = [7, 3, video_id, source, size, fingerprint, extra, attempt]
    assert plan_digest([entry]) == hashlib.sha256(canonical_json(row) + b"\n").hexdigest()
