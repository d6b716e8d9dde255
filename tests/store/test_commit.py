"""The commit protocol: what exists, what does not, and what a full disk leaves behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dyntok.errors import DamageError, StoreError, StoreVersionError
from dyntok.records import VideoRow
from dyntok.store import (
    CompletionRecord,
    DatasetInfo,
    StoreRoot,
    commit_shard,
    completed_shards,
    failed_row,
    open_shard_reader,
    open_shard_writer,
    plan_digest,
)
from dyntok.store.signed import canonical_json, digest_file, sign, unsign
from tests.support.samples import iter_records, make_info, make_plan, make_sample, read_video, write_shard

FORMATS = ["webdataset", "zarr"]
RECORD = "shards/shard-000000.json"


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> StoreRoot:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return StoreRoot.open(url, create=True)


def test_a_record_is_read_as_it_was_written(root: StoreRoot) -> None:
    entries = make_plan(0, ["a", "b", "c"])
    record, _ = write_shard(root, make_info(), entries, failed=("b",))
    assert CompletionRecord.load(root, 0) == record
    assert CompletionRecord.load(root, 0, plan_digest(entries)) == record
    assert [row.status for row in record.videos] == ["done", "failed", "done"]
    assert [row.row for row in record.done] == [0, 1]
    assert completed_shards(root) == (0,)
    assert list(iter_records(root)) == [record]


def test_a_record_of_another_plan_is_not_taken(root: StoreRoot) -> None:
    entries = make_plan(0, ["a", "b"])
    write_shard(root, make_info(), entries)
    changes = [
        {"id": "z"},
        {"source": "z"},
        {"size_bytes": 11},
        {"fingerprint": None},
        {"extra": '{"x":1}'},
        {"attempt": 2},
        {"position": 5},
        {"shard": 1},
    ]
    for change in changes:
        assert CompletionRecord.load(root, 0, plan_digest([entries[0], replace(entries[1], **change)])) is None
    assert CompletionRecord.load(root, 0, plan_digest(entries[:1])) is None
    moved = [replace(entry, ref=replace(entry.ref, path="/elsewhere")) for entry in entries]
    assert CompletionRecord.load(root, 0, plan_digest(moved)) is not None


def test_torn_and_changed_records_are_ignored(root: StoreRoot) -> None:
    record, _ = write_shard(root, make_info(), make_plan(0, ["a"]))
    data = root.read_bytes(RECORD)
    for length in [0, 1, len(data) // 2, len(data) - 1]:
        root.write_atomic(RECORD, data[:length])
        assert CompletionRecord.load(root, 0) is None
    for position in range(0, len(data), 7):
        for bit in (0, 5):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            root.write_atomic(RECORD, bytes(changed))
            assert CompletionRecord.load(root, 0) is None
    root.write_atomic(RECORD, b" " + data)
    assert CompletionRecord.load(root, 0) is None
    root.write_atomic("shards/shard-000001.json", data)
    assert CompletionRecord.load(root, 1) is None
    root.write_atomic(RECORD, data)
    assert CompletionRecord.load(root, 0) == record


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"path": "../../etc/passwd", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "dataset.json", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "shards/shard-000001.tar", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "shards/shard-000000.tar", "bytes": True, "sha256": "0"}]},
        {"files": 7},
        {"shard": 3},
        {"videos": [{}]},
        {"videos": None},
    ],
)
def test_signed_records_with_bad_content_are_damage(tmp_path: Path, change: dict[str, object]) -> None:
    root = StoreRoot.open(str(tmp_path))
    record, _ = write_shard(root, make_info(), make_plan(0, ["a"]))
    content = unsign(record.to_bytes(), "x")
    root.write_atomic(RECORD, sign({**content, **change}))
    assert CompletionRecord.load(root, 0) is None
    with pytest.raises(DamageError, match=r"shard-000000\.json"):
        CompletionRecord.load_strict(root, 0)


@pytest.mark.parametrize(
    "change", [{"row": 0}, {"row": 2}, {"position": -1}, {"status": "maybe"}, {"tokens": 3}, {"frames": 1.5}]
)
def test_rows_must_make_sense(tmp_path: Path, change: dict[str, object]) -> None:
    root = StoreRoot.open(str(tmp_path))
    record, _ = write_shard(root, make_info(), make_plan(0, ["a", "b"]))
    content = unsign(record.to_bytes(), "x")
    content["videos"][1] |= change
    root.write_atomic(RECORD, sign(content))
    assert CompletionRecord.load(root, 0) is None


def test_newer_formats_are_named(root: StoreRoot) -> None:
    record, _ = write_shard(root, make_info(), make_plan(0, ["a"]))
    root.write_atomic(RECORD, sign({**unsign(record.to_bytes(), "x"), "format_version": 7}))
    with pytest.raises(StoreVersionError, match="format 7; this dyntok reads formats up to 1"):
        CompletionRecord.load(root, 0)
    make_info().save(root)
    content = json.loads(root.read_bytes("dataset.json"))
    root.write_atomic("dataset.json", canonical_json({**content, "format_version": 2, "digest": "of other rules"}))
    with pytest.raises(StoreVersionError, match="format 2") as caught:
        DatasetInfo.load(root)
    assert "upgrade" in str(caught.value.hint)


@pytest.mark.parametrize("version", [0, "1", None, 1.5])
def test_a_version_that_never_was_is_damage(root: StoreRoot, version: object) -> None:
    record, _ = write_shard(root, make_info(), make_plan(0, ["a"]))
    root.write_atomic(RECORD, sign({**unsign(record.to_bytes(), "x"), "format_version": version}))
    with pytest.raises(DamageError, match="no valid format version"):
        CompletionRecord.load_strict(root, 0)


def test_a_flipped_bit_in_the_version_is_damage(root: StoreRoot) -> None:
    make_info().save(root)
    data = root.read_bytes("dataset.json")
    root.write_atomic("dataset.json", data.replace(b'"format_version": 1', b'"format_version": 3'))
    with pytest.raises(DamageError, match=r"dataset\.json"):
        DatasetInfo.load(root)


def test_dataset_info_is_read_as_it_was_written(root: StoreRoot) -> None:
    for options in (
        {},
        {"layout": "explicit", "dtype": "int8"},
        {"shard_format": "zarr", "thresholds": (-0.5, 0.0)},
    ):
        info = make_info(**options)
        info.save(root)
        assert DatasetInfo.load(root) == info
    assert info.stored_threshold == 0.0
    assert make_info().level_thresholds == (0.6,)
    assert make_info(layout="explicit").level_thresholds == (0.6, 0.5, 0.4)


def test_a_folder_that_is_no_store_says_so(root: StoreRoot) -> None:
    with pytest.raises(StoreError, match=r"not a dyntok store: it has no dataset\.json") as caught:
        DatasetInfo.load(root)
    assert caught.value.hint is not None


def test_json_that_is_no_number_is_refused_in_records(root: StoreRoot) -> None:
    row = VideoRow("a", "a", "a", 0, "failed", seconds=float("nan"))
    with pytest.raises(StoreError, match="cannot be written"):
        CompletionRecord(0, "", (), (row,)).save(root)


def test_failure_messages_of_any_text_can_be_recorded(root: StoreRoot) -> None:
    entries = make_plan(0, ["a"])
    writer = open_shard_writer(root, make_info(), 0)
    row = failed_row(entries[0], "a", "decoder", "cannot read \udcff.mp4")
    record = commit_shard(root, make_info(), writer.finish(), [row], plan_digest(entries))
    assert CompletionRecord.load(root, 0) == record
    assert record.videos[0].error == "cannot read \\udcff.mp4"


@pytest.mark.parametrize("shard_format", FORMATS)
def test_nothing_shows_before_the_commit(root: StoreRoot, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    writer = open_shard_writer(root, info, 0)
    row = writer.add(make_sample(info, "a"), position=0, source="in/a")
    content = writer.finish()
    assert root.list("shards") == ()
    entries = make_plan(0, ["a"])
    commit_shard(root, info, content, [row], plan_digest(entries))
    writer.abort()
    assert RECORD in root.list("shards")
    assert not list(root.scratch_dir().iterdir())


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_crash_before_the_record_is_repaired_by_the_next_commit(root: StoreRoot, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    clean = StoreRoot.open(f"memory://{uuid.uuid4().hex}")
    write_shard(clean, info, make_plan(0, ["a", "b"]))
    write_shard(root, info, make_plan(0, ["x", "y", "z"]), frames=9)
    root.remove(RECORD)
    if shard_format == "zarr":
        root.write_atomic("shards/shard-000000.zarr/tokens/c/9/0", b"left over")
    assert CompletionRecord.load(root, 0) is None
    with pytest.raises(StoreError, match="no valid completion record"):
        open_shard_reader(root, info, 0)
    write_shard(root, info, make_plan(0, ["a", "b"]))
    assert {path: root.read_bytes(path) for path in root.list("shards")} == {
        path: clean.read_bytes(path) for path in clean.list("shards")
    }


class StoppedError(Exception):
    pass


class StoppingRoot(StoreRoot):
    """Changes so much, and then nothing more."""

    left = 0

    def _change(self) -> None:
        if self.left == 0:
            raise StoppedError
        self.left -= 1

    def commit_file(self, *arguments: Any) -> None:
        self._change()
        super().commit_file(*arguments)

    def commit_tree(self, *arguments: Any) -> None:
        self._change()
        super().commit_tree(*arguments)

    def remove(self, path: str) -> None:
        self._change()
        super().remove(path)


@pytest.mark.parametrize("old_statistics", [True, False])
@pytest.mark.parametrize("shard_format", FORMATS)
def test_no_record_ever_stands_over_other_data(tmp_path: Path, shard_format: str, old_statistics: bool) -> None:
    """A shard is written again, of another plan, by a process that dies before its first change, its second, ..."""
    info = make_info(shard_format=shard_format)
    for changes in range(10):
        url = str(tmp_path / str(changes))
        before = StoreRoot.open(url, create=True)
        write_shard(before, info, make_plan(0, ["old"]), frames=9, statistics=old_statistics)
        root = StoppingRoot.open(url)
        root.left = changes
        with suppress(StoppedError):
            new, _ = write_shard(root, info, make_plan(0, ["a", "b"]), statistics=not old_statistics)
            break
        record = CompletionRecord.load(before, 0)
        for file in record.files if record is not None else ():
            assert digest_file(before, file.path) == file
    assert changes >= 4 and CompletionRecord.load(before, 0) == new
    assert {file.path for file in new.files} | {RECORD} == set(before.list("shards"))


def test_rows_and_content_must_agree(root: StoreRoot) -> None:
    info = make_info()
    writer = open_shard_writer(root, info, 0)
    writer.add(make_sample(info, "a"), position=0, source="in/a")
    with pytest.raises(StoreError, match="holds 1 videos"):
        commit_shard(root, info, writer.finish(), [], "digest")
    writer.abort()
    assert root.list("shards") == ()


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The kernel refuses to write a file beyond `limit` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_full_disk_keeps_what_is_committed(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format, token_dim=512, dtype="float32")
    root = StoreRoot.open(str(tmp_path))
    first, _ = write_shard(root, info, make_plan(0, ["a"]))
    writer = open_shard_writer(root, info, 1)
    with file_size_limit(2**16), pytest.raises(StoreError, match=r"shard-000001") as caught:
        writer.add(make_sample(info, "b", frames=40), position=0, source="in/b")
        writer.finish()
    assert "run the same command again" in str(caught.value.hint)
    writer.abort()
    assert not list(root.scratch_dir().iterdir())
    assert list(iter_records(root)) == [first]
    write_shard(root, info, make_plan(1, ["b"]), frames=40)
    assert completed_shards(root) == (0, 1)


def test_a_tar_goes_on_after_a_full_disk_had_room_again(tmp_path: Path) -> None:
    info = make_info(token_dim=512, dtype="float32")
    straight, _ = write_shard(StoreRoot.open(str(tmp_path / "a"), create=True), info, make_plan(0, ["v0", "v1"]))
    root = StoreRoot.open(str(tmp_path / "b"), create=True)
    writer = open_shard_writer(root, info, 0)
    with file_size_limit(2**16), pytest.raises(StoreError, match="cannot write"):
        writer.add(make_sample(info, "big", frames=40), position=0, source="x")
    for position in range(2):
        sample = make_sample(info, f"v{position}", frames=1 + position, seed=position)
        writer.add(sample, position=position, source="x")
    assert writer.finish().files == straight.data_files
    writer.abort()


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from dyntok.store import StoreRoot, root as _  # noqa
from dyntok.store.root import StoreRoot
from tests.support.samples import *
steps = 0
def step(original):
    def run(*args, **kwargs):
        global steps
        steps += 1
        if steps > {limit}:
            os._exit(9)
        return original(*args, **kwargs)
    return run
write_shard(StoreRoot.open({url!r}), make_info(shard_format={format!r}), make_plan(0, ["a"]))
os.fsync, Path.rename, Path.replace = step(os.fsync), step(Path.rename), step(Path.replace)
write_shard(StoreRoot.open({url!r}), make_info(shard_format={format!r}), make_plan(1, ["b"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 20, 45])
def test_a_writer_killed_anywhere_in_the_commit_leaves_a_sound_store(
    tmp_path: Path, shard_format: str, limit: int
) -> None:
    code = KILLED.format(path=sys.path, limit=limit, url=str(tmp_path), format=shard_format)
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}, timeout=120)
    root, info = StoreRoot.open(str(tmp_path)), make_info(shard_format=shard_format)
    for record in iter_records(root):
        reader = open_shard_reader(root, info, record.shard, record)
        assert read_video(reader, 0).head.id == ("a" if record.shard == 0 else "b")
    assert CompletionRecord.load(root, 0) is not None
    write_shard(root, info, make_plan(1, ["b"]))
    assert read_video(open_shard_reader(root, info, 1), 0).head.id == "b"
