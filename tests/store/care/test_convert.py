"""Conversion: the same content in the other format, and back to the same bytes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dyntok.errors import DamageError, StoreError, StoreMismatchError, UsageError
from dyntok.store import (
    CompletionRecord,
    DatasetInfo,
    StoreIndex,
    StoreRoot,
    build_index,
    convert,
    open_shard_reader,
    verify,
    write_manifest,
)
from dyntok.store.care.conversion import Conversion
from dyntok.store.plan_rows import plan_rows
from tests.support.samples import (
    complete_store,
    file_bytes,
    iter_records,
    level_tokens,
    make_info,
    make_plan,
    read_video,
    write_plan,
    write_shard,
)

OTHER = {"webdataset": "zarr", "zarr": "webdataset"}


def result_files(root: StoreRoot) -> dict[str, bytes]:
    return {path: data for path, data in file_bytes(root) if not path.startswith(".tmp")}


@pytest.mark.parametrize("source_format", list(OTHER))
@pytest.mark.parametrize("layout", ["nested", "explicit"])
@pytest.mark.parametrize("place", ["local", pytest.param("memory", marks=pytest.mark.slow)])
def test_there_is_equal_and_back_is_identical(tmp_path: Path, source_format: str, layout: str, place: str) -> None:
    base = str(tmp_path) if place == "local" else f"memory://{uuid.uuid4().hex}"
    info = make_info(shard_format=source_format, layout=layout, dtype="int8" if layout == "explicit" else "bfloat16")
    source, samples = complete_store(f"{base}/a", info)
    progress: list[tuple[int, int]] = []
    report = convert(
        f"{base}/a",
        f"{base}/b",
        format=OTHER[source_format],
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert (report.shards, report.already, report.videos) == (3, 0, len(samples))
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    there = StoreRoot.open(f"{base}/b")
    checked = verify(f"{base}/b")
    assert checked.ok and checked.complete, checked.findings
    target_info = DatasetInfo.load(there)
    assert target_info == replace(info, shard_format=OTHER[source_format])
    for record in iter_records(there):
        reader = open_shard_reader(there, target_info, record.shard, record)
        for row in reader.rows:
            video, sample = read_video(reader, row.row), samples[row.id]
            np.testing.assert_array_equal(video.head.similarity, sample.similarity)
            for level, original in zip(video.levels, sample.levels, strict=True):
                np.testing.assert_array_equal(level.tokens, level_tokens(original))
    before, after = StoreIndex.open(source), StoreIndex.open(there)
    assert before.ids == after.ids and before.column("tokens_0.50") == after.column("tokens_0.50")
    convert(f"{base}/b", f"{base}/c", format=source_format)
    assert result_files(StoreRoot.open(f"{base}/c")) == result_files(source)


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    complete_store(str(tmp_path / "a"), make_info())
    whole = convert(str(tmp_path / "a"), str(tmp_path / "whole"), format="zarr")

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr", on_progress=stop)
    root = StoreRoot.open(str(tmp_path / "b"))
    assert not verify(str(tmp_path / "b")).complete
    assert len(list(iter_records(root))) == 2
    (tmp_path / "b/shards/shard-000001.json").write_bytes(b"torn")
    report = convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")
    assert report.already == 1 and report.bytes == whole.bytes
    assert result_files(root) == result_files(StoreRoot.open(str(tmp_path / "whole")))
    assert convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr").already == 3


def test_damage_is_not_given_a_new_digest(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path / "a"), make_info())
    record = CompletionRecord.load(root, 1)
    assert record is not None
    for path in (record.files[0].path, "row_marker.safetensors"):
        data = root.read_bytes(path)
        (tmp_path / "a" / path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(DamageError, match=path.rsplit("/", 1)[-1]):
            convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")
        (tmp_path / "a" / path).write_bytes(data)


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path / "a"), make_info())
    source = str(tmp_path / "a")
    with pytest.raises(UsageError, match="no shard format"):
        convert(source, str(tmp_path / "b"), format="lmdb")
    with pytest.raises(UsageError, match="already"):
        convert(source, str(tmp_path / "b"), format="webdataset")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious.txt").write_text("x")
    with pytest.raises(StoreMismatchError, match=r"precious\.txt"):
        convert(source, str(tmp_path / "full"), format="zarr")
    complete_store(str(tmp_path / "other"), make_info(shard_format="zarr", token_dim=5))
    with pytest.raises(StoreMismatchError, match="something else"):
        convert(source, str(tmp_path / "other"), format="zarr")
    root.remove("manifest.json")
    with pytest.raises(StoreError, match="not complete"):
        convert(source, str(tmp_path / "b"), format="zarr")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("path", ["plan.parquet", "shards/shard-000001.json"])
def test_no_damaged_file_is_taken_over(tmp_path: Path, path: str) -> None:
    root, _ = complete_store(str(tmp_path / "a"), make_info())
    data = bytearray(root.read_bytes(path))
    data[len(data) // 2] ^= 1
    root.write_atomic(path, bytes(data))
    with pytest.raises(DamageError, match=path.rsplit("/", 1)[-1]):
        convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")


def test_a_damaged_index_does_no_harm(tmp_path: Path) -> None:
    """It follows from the plan and the records, which are read anyway."""
    complete_store(str(tmp_path / "a"), make_info())
    convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")
    index = pq.read_table(tmp_path / "a/index.parquet")
    wrong = index.set_column(index.schema.names.index("frames"), index.schema.field("frames"), index["patches"])
    pq.write_table(wrong, tmp_path / "a/index.parquet")
    convert(str(tmp_path / "a"), str(tmp_path / "c"), format="zarr")
    assert result_files(StoreRoot.open(tmp_path / "c")) == result_files(StoreRoot.open(tmp_path / "b"))


def grow(root: StoreRoot) -> None:
    """As a run with `--extend` does: a new shard, the plan, index and manifest after it."""
    root.remove("manifest.json")
    entries = [*plan_rows(root), *make_plan(3, ["new.mp4"])]
    write_plan(root, entries)
    write_shard(root, DatasetInfo.load(root), entries[-1:])
    build_index(root, entries)
    write_manifest(root)


def test_a_source_that_grows_meanwhile_is_taken_as_it_was(tmp_path: Path) -> None:
    """And what came is taken by the next call."""
    source, _ = complete_store(str(tmp_path / "a"), make_info())
    convert(str(tmp_path / "a"), str(tmp_path / "before"), format="zarr")
    report = convert(
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        format="zarr",
        on_progress=lambda done, total: grow(source) if done == 1 else None,
    )
    assert report.shards == 3 and verify(str(tmp_path / "b")).ok
    target = StoreRoot.open(str(tmp_path / "b"))
    assert result_files(target) == result_files(StoreRoot.open(str(tmp_path / "before")))
    again = convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")
    assert (again.shards, again.already) == (4, 3) and verify(str(tmp_path / "b")).ok


def test_a_target_that_is_to_grow_is_incomplete_until_it_has(tmp_path: Path) -> None:
    source, _ = complete_store(str(tmp_path / "a"), make_info())
    convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr")
    grow(source)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr", on_progress=stop)
    checked = verify(str(tmp_path / "b"))
    assert checked.ok and not checked.complete, checked.findings
    assert convert(str(tmp_path / "a"), str(tmp_path / "b"), format="zarr").already == 3


@pytest.mark.parametrize("change", [grow, lambda root: root.remove("manifest.json")])
def test_a_source_whose_plan_changed_just_now_is_not_called_damaged(
    tmp_path: Path, change: Callable[[StoreRoot], None]
) -> None:
    source, _ = complete_store(str(tmp_path / "a"), make_info())
    conversion = Conversion(str(tmp_path / "a"), str(tmp_path / "b"), "zarr")
    change(source)
    write_plan(source, make_plan(0, ["another.mp4"]))
    with pytest.raises(StoreError, match="was written to just now") as caught:
        conversion.run()
    assert not isinstance(caught.value, DamageError) and "again" in str(caught.value.hint)


def test_a_store_that_came_to_the_target_meanwhile_is_left_alone(tmp_path: Path) -> None:
    complete_store(str(tmp_path / "a"), make_info())
    conversion = Conversion(str(tmp_path / "a"), str(tmp_path / "b"), "zarr")
    other, _ = complete_store(str(tmp_path / "b"), make_info(shard_format="zarr", token_dim=5))
    before = result_files(other)
    with pytest.raises(StoreMismatchError, match="something else"):
        conversion.run()
    assert result_files(other) == before
