"""Signed JSON: the quick way to tell that a file is whole accepts what the slow way accepts, and nothing else."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok.errors import DamageError
from dyntok.records import FileDigest, PlanEntry, SourceRef
from dyntok.store import StoreRoot, plan_digest
from dyntok.store.signed import (
    HEAD_BYTES,
    canonical_json,
    digest_bytes,
    digest_file,
    digest_path,
    files_from_json,
    files_json,
    leading_digest,
    sign,
    unsign,
    unsign_compact,
)

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


@given(content=st.dictionaries(TEXT, JSON, max_size=4), indent=st.none() | st.integers(0, 4))
def test_files_are_canonical_json_with_a_digest_of_the_rest(content: dict[str, Any], indent: int | None) -> None:
    """Sorted, in UTF-8; indented for people to read, where the digest is that of the compact form all the same."""
    content.pop("digest", None)
    separators = (",", ":") if indent is None else (",", ": ")
    options = {"sort_keys": True, "ensure_ascii": False, "indent": indent, "separators": separators}
    assert canonical_json(content, indent=indent) == json.dumps(content, **options).encode()
    signed = {**content, "digest": hashlib.sha256(canonical_json(content)).hexdigest()}
    data = sign(content, indent=indent)
    assert data == json.dumps(signed, **options).encode() + b"\n"
    assert unsign(data, "here", indent=indent) == content
    with pytest.raises(DamageError, match="here"):
        unsign(data, "here", indent=5 if indent is None else None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_is_no_json_is_not_written(value: object) -> None:
    with pytest.raises(ValueError):
        sign({"x": value})


def with_digest(body: bytes) -> bytes:
    """A file that begins with the digest of what follows, whatever that is."""
    return b'{"digest":"' + hashlib.sha256(b"{" + body).hexdigest().encode() + b'",' + body + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"7\n",
        b"{}\n",
        b'{"a":1}\n',
        b"[" * 100_000,
        b'{"digest":"' + b"\xff" * 64 + b'","a":1}\n',
        with_digest(b'"a":1'),
        with_digest(b"garbage}"),
        with_digest(b'"a":1}')[:-1] + b" ",
        with_digest(b',"a":1}').replace(b'",,', b'" ,'),
        with_digest(b'"a":1}').replace(b'",', b"',"),
    ],
)
def test_what_was_never_signed_is_damage(data: bytes) -> None:
    assert unsign_compact(data) is None
    for indent in (None, 2):
        with pytest.raises(DamageError, match="here"):
            unsign(data, "here", indent=indent)


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**21 + 1])
def test_a_file_has_one_digest_wherever_it_is(tmp_path: Path, size: int) -> None:
    root = StoreRoot.open(str(tmp_path))
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    root.write_atomic("some/file", data)
    expected = FileDigest("some/file", size, hashlib.sha256(data).hexdigest())
    assert digest_bytes("some/file", data) == expected
    assert digest_file(root, "some/file") == expected
    assert digest_path(tmp_path / "some" / "file", "some/file") == expected
    assert files_json([expected]) == [{"path": "some/file", "bytes": size, "sha256": expected.sha256}]
    assert files_from_json(files_json([expected, expected])) == (expected, expected)


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**25)
    tracemalloc.start()
    try:
        digests = (digest_file(StoreRoot.open(str(tmp_path)), "large"), digest_path(tmp_path / "large", "large"))
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert digests[0] == digests[1] and digests[0].bytes == 2**25


@pytest.mark.parametrize("change", [{"path": 3}, {"bytes": True}, {"bytes": "1"}, {"bytes": 1.0}, {"sha256": None}])
def test_entries_of_files_have_their_types(change: dict[str, object]) -> None:
    good = {"path": "a", "bytes": 1, "sha256": "0"}
    with pytest.raises(TypeError):
        files_from_json([good, {**good, **change}])
    with pytest.raises(KeyError):
        files_from_json([{name: value for name, value in good.items() if name not in change}])


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
    entry = PlanEntry(7, 3, video_id, source, SourceRef("/x"), size, fingerprint, extra, attempt)
    row = [7, 3, video_id, source, size, fingerprint, extra, attempt]
    assert plan_digest([entry]) == hashlib.sha256(canonical_json(row) + b"\n").hexdigest()
