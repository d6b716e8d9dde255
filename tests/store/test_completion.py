"""Completion records: which are taken, which are damage, and how many are asked for at a time."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dyntok.errors import DamageError, StoreError, StoreVersionError
from dyntok.records import FileDigest, VideoRow
from dyntok.store import CompletionRecord, StoreRoot, completed_shards, completion, failed_row
from dyntok.store.completion import iter_files, load_records
from dyntok.store.signed import sign, unsign
from tests.support.samples import make_plan

SHA = "ab" * 32


def make_record(shard: int, *, shard_format: str = "tar", statistics: bool = True) -> CompletionRecord:
    """A record as `commit_shard` writes one; its third row comes before its first in the shard."""
    stem = f"shards/shard-{shard:06d}"
    data = {"tar": [f"{stem}.tar"], "zarr": [f"{stem}.zarr/zarr.json", f"{stem}.zarr/tokens/c/0/0"]}[shard_format]
    files = [*data, f"{stem}.stats"] if statistics else data
    videos = (
        VideoRow("a", "ka", "in/a", 0, "done", row=1, frames=2, seconds=1.5, tokens={"0.60": 3}, checksum="c"),
        failed_row(make_plan(shard, ["-", "b"], attempt=2)[1], "kb", "decoder", "b: cannot be read"),
        VideoRow("c", "kc", "in/c", 2, "done", row=0, frames=1, seconds=1, tokens={"0.60": 1}, checksum="d"),
    )
    return CompletionRecord(shard, "of the plan", tuple(FileDigest(path, 7, SHA) for path in files), videos)


def content_of(record: CompletionRecord) -> dict[str, Any]:
    return unsign(record.to_bytes(), "here")


@pytest.mark.parametrize("shard_format", ["tar", "zarr"])
@pytest.mark.parametrize("statistics", [True, False])
def test_a_record_tells_its_files_and_rows(tmp_path: Path, shard_format: str, statistics: bool) -> None:
    root = StoreRoot.open(str(tmp_path))
    record = make_record(3, shard_format=shard_format, statistics=statistics)
    record.save(root)
    for loaded in (CompletionRecord.load(root, 3), CompletionRecord.load_strict(root, 3)):
        assert loaded == record
        assert [row.id for row in loaded.done] == ["c", "a"]
        assert loaded.data_files + ((loaded.statistics,) if statistics else ()) == record.files
        assert (loaded.statistics is None) == (not statistics)
    assert CompletionRecord.load(root, 3, "of the plan") == record
    assert CompletionRecord.load(root, 3, "of another") is None
    assert CompletionRecord.load(root, 4) is None
    with pytest.raises(StoreError, match=r"shard-000004\.json"):
        CompletionRecord.load_strict(root, 4)


def test_a_failed_row_says_which_try_failed_and_how() -> None:
    row = failed_row(make_plan(0, ["-", "b"], attempt=2)[1], "kb", "decoder", "b: \udcff")
    assert row == VideoRow("b", "kb", "in/b", 1, "failed", 2, "decoder", "b: \\udcff", row=-1)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no files": lambda c: c.pop("files"),
    "no rows": lambda c: c.pop("videos"),
    "no plan": lambda c: c.pop("plan_digest"),
    "no shard": lambda c: c.pop("shard"),
    "another shard": lambda c: c.update(shard=2),
    "a shard that is true": lambda c: c.update(shard=True),
    "a shard in floating point": lambda c: c.update(shard=1.0),
    "another shard's tar": lambda c: c["files"][0].update(path="shards/shard-000002.tar"),
    "another shard's statistics": lambda c: c["files"][1].update(path="shards/shard-000002.stats"),
    "another shard's group": lambda c: c["files"][0].update(path="shards/shard-000002.zarr/zarr.json"),
    "a group that is a file": lambda c: c["files"][0].update(path="shards/shard-000001.zarr"),
    "a path that leaves its group": lambda c: c["files"][0].update(path="shards/shard-000001.zarr/../x"),
    "the record itself": lambda c: c["files"][0].update(path="shards/shard-000001.json"),
    "a position twice": lambda c: c["videos"][2].update(position=1),
    "positions that fall": lambda c: c["videos"].reverse(),
    "a third status": lambda c: c["videos"][1].update(status="pending"),
    "a row twice": lambda c: c["videos"][0].update(row=0),
    "a row left out": lambda c: c["videos"][0].update(row=2),
    "a field too few": lambda c: c["videos"][0].pop("decoder"),
    "a field too many": lambda c: c["videos"][0].update(more=1),
    "a field with another name": lambda c: c["videos"][0].update(zz=c["videos"][0].pop("tokens")),
    "a count that is true": lambda c: c["videos"][0].update(frames=True),
    "a count in floating point": lambda c: c["videos"][0].update(frames=2.0),
    "a text that is a number": lambda c: c["videos"][0].update(source=3),
    "a row that is a list": lambda c: c["videos"].append([]),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_signed_record_with_one_wrong_part_is_damage(tmp_path: Path, change: str) -> None:
    root = StoreRoot.open(str(tmp_path))
    content = content_of(make_record(1))
    CHANGES[change](content)
    root.write_atomic("shards/shard-000001.json", sign(content))
    assert CompletionRecord.load(root, 1) is None
    with pytest.raises(DamageError, match=r"shard-000001\.json is no valid completion record"):
        CompletionRecord.load_strict(root, 1)


def test_rows_may_come_without_what_is_optional_and_in_any_order(tmp_path: Path) -> None:
    """Rows of before there were checksums, and of a program that does not sort."""
    record = make_record(1)
    content = content_of(record)
    for row in content["videos"]:
        del row["checksum"]
    loaded = CompletionRecord.from_content(content, 1, "here")
    assert loaded == replace(record, videos=tuple(replace(row, checksum="") for row in record.videos))
    content = content_of(record)
    content["videos"] = [dict(reversed(row.items())) for row in content["videos"]]
    assert CompletionRecord.from_content(content, 1, "here") == record


def test_messages_name_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a newer format, torn, or larger than any record: whichever way it is read."""
    root = StoreRoot.open(str(tmp_path))
    name, data = "shards/shard-000001.json", make_record(1).to_bytes()
    where = re.escape(f"{root.url}/{name}")
    ways = (
        lambda: CompletionRecord.load(root, 1),
        lambda: CompletionRecord.load_strict(root, 1),
        lambda: list(iter_files(root)),
    )
    root.write_atomic(name, sign({**content_of(make_record(1)), "format_version": 7}))
    for read in ways:
        with pytest.raises(StoreVersionError, match=f"^{where} is of format 7"):
            read()
    root.write_atomic(name, data[:-9])
    with pytest.raises(DamageError, match=f"^{where} is torn"):
        CompletionRecord.load_strict(root, 1)
    root.write_atomic(name, data)
    monkeypatch.setattr(completion, "MAX_RECORD_BYTES", len(data))
    for read in ways:
        assert read()
    monkeypatch.setattr(completion, "MAX_RECORD_BYTES", len(data) - 1)
    for read in ways:
        with pytest.raises(StoreError, match=f"^{where} has {len(data)} bytes, more than"):
            read()


def test_files_are_told_of_every_record_that_is_whole(tmp_path: Path) -> None:
    """Whatever its rows say; a record that is torn or names others' files does not stop those behind it."""
    root = StoreRoot.open(str(tmp_path))
    records = {shard: make_record(shard) for shard in (0, 1, 2, 12)}
    for record in records.values():
        record.save(root)
    root.write_atomic("shards/shard-000001.json", records[1].to_bytes()[:-3])
    root.write_atomic("shards/shard-000002.json", records[0].to_bytes())
    root.write_atomic("shards/shard-000012.json", sign({**content_of(records[12]), "videos": [7]}))
    root.write_atomic("shards/shard-000003.tar", b"")
    root.write_atomic("shard-000004.json", b"")
    assert completed_shards(root) == (0, 1, 2, 12)
    assert list(iter_files(root)) == [(0, records[0].files), (12, records[12].files)]


class WaitingRoot(StoreRoot):
    """An object store that answers when 16 have asked."""

    def read_if_there(self, path: str, max_bytes: int = 0) -> bytes | None:
        self.crowd.wait(timeout=20)
        return super().read_if_there(path, max_bytes)


def test_records_of_an_object_store_are_asked_for_ahead_and_not_too_far() -> None:
    """In the order asked for; a record can be large, so that no more than 32 are under way."""
    root = WaitingRoot.open(f"memory://{uuid.uuid4().hex}", create=True)
    root.crowd = threading.Barrier(16)
    asked = [5, 0, *range(50, 110), 1, 4]
    for shard in (5, 50, 4):
        make_record(shard).save(root)
    shards = iter(asked)
    found = load_records(root, shards)
    first = next(found)
    left = list(shards)
    assert left == asked[32:]
    assert [first, *found] == [(s, make_record(s) if s in (5, 50, 4) else None) for s in asked[:32]]


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_records_come_in_the_order_asked_for(tmp_path: Path, kind: str) -> None:
    root = StoreRoot.open(str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}", create=True)
    make_record(50).save(root)
    asked = [50, *range(2, 70), 0, 1]
    assert list(load_records(root, asked)) == [(s, make_record(50) if s == 50 else None) for s in asked]
