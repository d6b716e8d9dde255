"""Manifests of each kind, good and bad."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, list_inputs
from dyntok.errors import InputError
from tests.corpus.helpers import write_files

Rows = list[dict[str, Any]]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def items_of(path: Path | str) -> list[CorpusItem]:
    return list(list_inputs([str(path)]))


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_kind(tmp_path: Path, suffix: str, bikes: Path) -> None:
    write_files(tmp_path, "clips/a b.mp4", "clips/ü.mp4")
    rows = [
        {"path": "clips/a b.mp4", "id": "first", "label": "x, y"},
        {"path": "./clips//ü.mp4", "id": "second", "label": 'quote " and\nnew line'},
        {"path": str(bikes), "id": "third", "label": ""},
        {"path": "clips/gone.mp4", "id": "fourth", "label": "é"},
    ]
    manifest = tmp_path / f"list.{suffix}"
    WRITERS[suffix](manifest, rows)
    items = items_of(manifest)
    assert [i.id for i in items] == ["first", "second", "third", "fourth"]
    assert [i.source for i in items] == [row["path"] for row in rows]
    assert [i.size_bytes for i in items] == [13, 12, bikes.stat().st_size, None]
    assert items[2].ref.path == str(bikes)
    assert all(Path(i.ref.path).is_absolute() for i in items)
    assert Path(items[1].ref.path).read_text() == "clips/ü.mp4"
    assert [json.loads(i.extra) for i in items] == [{"label": row["label"]} for row in rows]


@pytest.mark.parametrize("suffix", WRITERS)
def test_default_ids(tmp_path: Path, suffix: str) -> None:
    paths = [
        "clips/a.mp4",
        "./clips/../b.mp4",
        f"{tmp_path}/c/d.mp4",
        "/elsewhere/e.mp4",
        f"file://{tmp_path}/f.mp4",
    ]
    paths.append("memory://user:SECRET@bucket/g.mp4?token=SECRET")
    WRITERS[suffix](tmp_path / f"m.{suffix}", [{"path": path} for path in paths])
    items = items_of(tmp_path / f"m.{suffix}")
    assert [i.id for i in items] == [
        "clips/a.mp4",
        "b.mp4",
        "c/d.mp4",
        "/elsewhere/e.mp4",
        "f.mp4",
        "memory://bucket/g.mp4",
    ]
    assert all(i.extra == "{}" and "SECRET" not in i.source + i.id for i in items)
    assert items[-1].ref.path == paths[-1]


def test_the_three_kinds_agree(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.mp4", "id": f"v{i}", "caption": f"c{i}"} for i in range(300)]
    for suffix, write in WRITERS.items():
        write(tmp_path / f"m.{suffix}", rows)
    lists = [items_of(tmp_path / f"m.{suffix}") for suffix in WRITERS]
    assert lists[0] == lists[1] == lists[2]
    assert [i.id for i in lists[0]] == [row["id"] for row in rows]


def test_null_and_integer_ids(tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        WRITERS[suffix](tmp_path / f"m.{suffix}", [{"path": "a.mp4", "id": None}, {"path": "b.mp4", "id": 17}])
        assert [i.id for i in items_of(tmp_path / f"m.{suffix}")] == ["a.mp4", "17"]


def test_byte_order_mark_blank_lines_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"path": "a.mp4"}\r\n\r\n  \n{"path": "b.mp4"}')
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfpath\r\na.mp4\r\n\r\nb.mp4\r\n")
    for suffix in ("jsonl", "csv"):
        assert [i.id for i in items_of(tmp_path / f"m.{suffix}")] == ["a.mp4", "b.mp4"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return {k: finite(v) for k, v in value.items()} if isinstance(value, dict) else value


@settings(max_examples=60, deadline=None)
@given(extra=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=4))
def test_json_columns_pass_through(tmp_path_factory: pytest.TempPathFactory, extra: dict[str, Any]) -> None:
    extra = {key: value for key, value in extra.items() if key not in ("path", "id")}
    path = tmp_path_factory.mktemp("json") / "m.jsonl"
    write_jsonl(path, [{"path": "a.mp4", **extra}, {**dict(reversed(extra.items())), "path": "b.mp4"}])
    first, second = items_of(path)
    assert json.loads(first.extra) == finite(extra)
    assert first.extra == second.extra  # the order of keys does not matter
    assert list(json.loads(first.extra)) == sorted(extra)


def test_parquet_types(tmp_path: Path) -> None:
    ns = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC"))
    table = pa.table(
        {
            "path": pa.array(["a.mp4"]).dictionary_encode(),
            "when": ns,
            "day": [datetime.date(2024, 2, 29)],
            "long": [datetime.timedelta(seconds=90)],
            "price": [decimal.Decimal("1.10")],
            "blob": [b"\x00\xff"],
            "nan": [math.nan],
            "tags": [["x", "y"]],
            "nested": [{"k": 1.5}],
            "flag": [True],
            "none": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (item,) = items_of(tmp_path / "m.parquet")
    assert json.loads(item.extra) == {
        "when": "2023-11-14T22:13:20.123456+00:00",
        "day": "2024-02-29",
        "long": 90.0,
        "price": "1.10",
        "blob": "AP8=",
        "nan": None,
        "tags": ["x", "y"],
        "nested": {"k": 1.5},
        "flag": True,
        "none": None,
    }


BAD_JSON = {
    "no path": b'{"file": "a.mp4"}',
    "null path": b'{"path": null}',
    "empty path": b'{"path": ""}',
    "number as path": b'{"path": 3}',
    "null": b"null",
    "list": b'["a.mp4"]',
    "no JSON": b'{"path": "a.mp4"',
    "not UTF-8": b'{"path": "\xff.mp4"}',
    "NUL": b'{"path": "a\\u0000.mp4"}',
    "surrogate": b'{"path": "a\\ud800.mp4"}',
    "surrogate in a column": b'{"path": "a.mp4", "x": "\\udfff"}',
    "empty id": b'{"path": "a.mp4", "id": " "}',
    "id of a wrong type": b'{"path": "a.mp4", "id": 1.5}',
    "boolean id": b'{"path": "a.mp4", "id": true}',
    "control characters in the id": b'{"path": "a.mp4", "id": "a\\nb"}',
    "long id": b'{"path": "a.mp4", "id": "' + "é".encode() * 600 + b'"}',
    "deep nesting": b'{"path": "a.mp4", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge column": b'{"path": "a.mp4", "x": "' + b"x" * 70_000 + b'"}',
    "huge line": b'{"path": "a.mp4", "x": "' + b"x" * 2_000_000 + b'"}',
    "huge number": b'{"path": "a.mp4", "x": ' + b"9" * 5000 + b"}",
    "unknown protocol": b'{"path": "nosuch://a.mp4"}',
}


@pytest.mark.parametrize("line", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"path": "ok.mp4"}\n\n' + line + b"\n")
    with pytest.raises(InputError, match=r"m\.jsonl, line 3\b") as caught:
        items_of(tmp_path / "m.jsonl")
    assert caught.value.hint


def test_lines_are_limited_before_they_are_read(tmp_path: Path) -> None:
    for suffix in ("jsonl", "csv"):
        with (tmp_path / f"m.{suffix}").open("wb") as file:
            file.write(b"path\n" if suffix == "csv" else b"")
            file.truncate(8 * 2**30)  # sparse: a "line" of 8 GiB
        with pytest.raises(InputError, match="longer than 1048576 bytes"):
            items_of(tmp_path / f"m.{suffix}")


BAD_CSV = {
    "no path column": (b"file\na.mp4\n", "no column `path`"),
    "column twice": (b"path,x,x\na.mp4,1,2\n", "twice"),
    "too few cells": (b"path,x\na.mp4,1\nb.mp4\n", "line 3"),
    "too many cells": (b"path,x\na.mp4,1,2\n", "line 2"),
    "empty path": (b"path,x\na.mp4,1\n,2\n", "line 3"),
    "open quote": (b'path,x\n"a.mp4,1\n', "not CSV"),
    "not UTF-8": (b"path\na.mp4\n\xff\n", "line 3"),
    "after a cell with line breaks": (b'path,x\n"a.mp4","1\n2\n3"\n,4\n', "line 5"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_bad_csv_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        items_of(tmp_path / "m.csv")


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(InputError, match="no readable parquet"):
        items_of(path)
    pq.write_table(pa.table({"file": ["a.mp4"]}), path)
    with pytest.raises(InputError, match="no column `path`"):
        items_of(path)
    pq.write_table(pa.table({"path": ["a.mp4", None]}), path)
    with pytest.raises(InputError, match="row 2"):
        items_of(path)


def test_manifest_in_an_object_store() -> None:
    fs = fsspec.filesystem("memory")
    lines = [
        {"path": "clips/a.mp4"},
        {"path": "memory://lists/clips/b.mp4"},
        {"path": "memory://other/c.mp4"},
    ]
    try:
        fs.pipe("memory://lists/m.jsonl", "\n".join(map(json.dumps, lines)).encode())
        fs.pipe("memory://lists/clips/a.mp4", b"aaa")
        items = items_of("memory://lists/m.jsonl")
        assert [i.id for i in items] == ["clips/a.mp4", "clips/b.mp4", "memory://other/c.mp4"]
        assert items[0].ref.path == "memory://lists/clips/a.mp4"
        assert [i.size_bytes for i in items] == [3, None, None]
        assert items == items_of("memory://lists/*.jsonl")
        fs.pipe("memory://lists/m.jsonl", b'{"path": "../other/c.mp4"}')
        with pytest.raises(InputError, match="line 1"):
            items_of("memory://lists/m.jsonl")
    finally:
        fs.rm("/lists", recursive=True)


def test_a_pipe_in_a_manifest_is_unreadable_not_awaited(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "m.jsonl", [{"path": "/dev/stdin"}, {"path": "."}, {"path": "../m.jsonl"}])
    assert [i.size_bytes for i in items_of(tmp_path / "m.jsonl")] == [None, None, None]


def test_listing_is_a_stream(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.mp4"} for i in range(20_000)]
    write_jsonl(tmp_path / "m.jsonl", rows)
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write("broken\n")
    items = list_inputs([str(tmp_path / "m.jsonl")])
    assert [next(items).id for _ in range(15_000)] == [row["path"] for row in rows[:15_000]]
    with pytest.raises(InputError, match="line 20001"):
        list(items)
