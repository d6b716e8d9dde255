"""The index: one row per video, found by id, small in memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dyntok.store.index as index_module
from dyntok.errors import DamageError, StoreError, StoreVersionError
from dyntok.store import CompletionRecord, StoreIndex, StoreRoot, build_index
from dyntok.store.index import VERSION_KEY, hash_id, index_schema
from tests.support.samples import complete_store, make_info, make_plan, write_shard

IDS = ["a.mp4", "b/ü.mp4", "bad.mp4", "d.mp4", "late.mp4"]


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> StoreRoot:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return complete_store(url, make_info())[0]


def test_one_row_per_video_in_the_order_of_the_plan(root: StoreRoot) -> None:
    index = StoreIndex.open(root)
    assert len(index) == 5 and index.ids.to_pylist() == IDS
    assert index.column("status").to_pylist() == ["done", "done", "failed", "done", "done"]
    assert index.done.tolist() == [0, 1, 3, 4]
    assert index.numbers("shard").tolist() == [0, 0, 0, 1, 2]
    assert index.numbers("attempt").tolist() == [1, 1, 1, 1, 2]
    assert index.thresholds == ("0.40", "0.50", "0.60")
    assert pq.read_table(pa.BufferReader(root.read_bytes("index.parquet"))).num_rows == 5


def test_rows_are_those_of_the_records(root: StoreRoot) -> None:
    index = StoreIndex.open(root)
    for position in range(len(index)):
        shard, row = index.row(position)
        record = CompletionRecord.load(root, shard)
        assert record is not None and replace(record.videos[row.position], checksum="") == row
    with pytest.raises(IndexError, match="5 videos"):
        index.row(5)


def test_lookup_by_id(root: StoreRoot) -> None:
    index = StoreIndex.open(root)
    assert [index.position(video_id) for video_id in IDS] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        index.position("nobody")
    with pytest.raises(KeyError):
        index.column("nothing")
    assert pickle.loads(pickle.dumps(index)).position("d.mp4") == 3  # noqa: S301


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(index_module, "hash_id", lambda video_id: 7)
    monkeypatch.setattr("dyntok.store.index_build.hash_id", lambda video_id: 7)
    index = StoreIndex.open(complete_store(str(tmp_path), make_info())[0])
    assert [index.position(video_id) for video_id in IDS] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        index.position("nobody")


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    one, _ = complete_store(str(tmp_path / "one"), make_info())
    two, _ = complete_store(str(tmp_path / "two"), make_info())
    assert one.read_bytes("index.parquet") == two.read_bytes("index.parquet")


def test_many_groups_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dyntok.store.index_build.GROUP_ROWS", 3)
    root = StoreRoot.open(str(tmp_path))
    info = make_info()
    info.save(root)
    ids = [f"v{i}" for i in range(8)]
    first, second = make_plan(0, ids[:5]), make_plan(1, ids[5:])
    again = make_plan(2, ["v1", "v7"], attempt=2)
    write_shard(root, info, first, failed=("v1", "v3"))
    write_shard(root, info, second, failed=("v7",))
    build_index(root, iter(first + second + again))
    pending_retry = StoreIndex.open(root)
    assert pending_retry.row(1)[1].status == "failed" and pending_retry.row(1)[1].attempt == 1
    write_shard(root, info, again, failed=("v7",))
    build_index(root, iter(first + second + again))
    index = StoreIndex.open(root)
    assert index.ids.to_pylist() == ids
    assert [index.row(i)[1].status for i in range(8)] == ["done", "done", "done", "failed"] + ["done"] * 3 + ["failed"]
    assert [(index.row(i)[0], index.row(i)[1].attempt) for i in (1, 3, 7)] == [(2, 2), (0, 1), (2, 2)]
    assert [index.position(video_id) for video_id in ids] == list(range(8))


def test_the_latest_attempt_with_an_outcome_counts(tmp_path: Path) -> None:
    root, info = StoreRoot.open(str(tmp_path)), make_info()
    info.save(root)
    attempts = [make_plan(shard, ["v"], attempt=shard + 1) for shard in range(4)]
    for entries, failed in zip(attempts, [("v",), ("v",), (), None], strict=True):
        if failed is not None:
            write_shard(root, info, entries, failed=failed)
    build_index(root, [entry for entries in attempts for entry in entries])
    index = StoreIndex.open(root)
    shard, row = index.row(0)
    assert (len(index), shard, row.attempt, row.status) == (1, 2, 3, "done")


def test_videos_without_outcome_are_pending(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path))
    make_info().save(root)
    build_index(root, iter(make_plan(0, ["a"])))
    index = StoreIndex.open(root)
    assert index.row(0)[1].status == "pending" and index.done.tolist() == []


def test_an_empty_plan_gives_an_empty_index(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path))
    make_info().save(root)
    build_index(root, iter([]))
    index = StoreIndex.open(root)
    assert len(index) == 0 and index.done.tolist() == []
    with pytest.raises(KeyError):
        index.position("a")


def test_missing_damaged_and_newer_indexes(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path))
    with pytest.raises(StoreError, match="not complete") as caught:
        StoreIndex.open(root)
    assert "encode" in str(caught.value.hint)
    root.write_atomic("index.parquet", b"PAR1 nonsense PAR1")
    with pytest.raises(DamageError, match=r"index\.parquet"):
        StoreIndex.open(root)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(DamageError, match="no column status"):
        StoreIndex.open(root)
    schema = index_schema((0.5,)).with_metadata({VERSION_KEY: b"2"})
    pq.write_table(schema.empty_table(), tmp_path / "index.parquet")
    with pytest.raises(StoreVersionError, match="format 2"):
        StoreIndex.open(root)


def test_the_hash_is_fixed() -> None:
    """It is part of the format: XXH3 with 64 bits of the UTF-8 id."""
    assert hash_id("a") == 16629034431890738719


OPEN = """
import json, re, sys
from pathlib import Path
from dyntok.store import CompletionRecord, StoreIndex, StoreRoot
index = StoreIndex.open(StoreRoot.open(sys.argv[1]))
found = [index.position(f"part-{i % 9}/video-{i:07d}.mp4") for i in (0, 999_999, 123_456)]
index.done, index.numbers("shard"), index.numbers("offset"), index.row(77)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([len(index), found, int(peak[1])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_million_videos_need_less_than_300_mb(tmp_path: Path) -> None:
    schema = index_schema((0.4, 0.5, 0.6))
    count = 10**6
    with pq.ParquetWriter(tmp_path / "index.parquet", schema, compression="zstd") as writer:
        for start in range(0, count, 2**16):
            ids = [f"part-{i % 9}/video-{i:07d}.mp4" for i in range(start, min(start + 2**16, count))]
            texts = {
                "id": ids,
                "source": [f"/mnt/{i}" for i in ids],
                "key": [f"{i}-0123456789abcdef" for i in ids],
            }
            columns = []
            for field in schema:
                if field.name in texts:
                    columns.append(pa.array(texts[field.name]))
                elif field.name == "id_hash":
                    columns.append(pa.array([hash_id(i) for i in ids], pa.uint64()))
                elif field.type == pa.string():
                    columns.append(pa.array(["done"] * len(ids)))
                else:
                    columns.append(pa.array(np.arange(len(ids)) % 30_000).cast(field.type))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=2**16)
    result = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    length, found, peak_kib = json.loads(result.stdout)
    assert (length, found) == (count, [0, 999_999, 123_456])
    assert peak_kib * 1024 < 300e6
