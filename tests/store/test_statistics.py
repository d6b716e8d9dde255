"""A shard's statistics: written with it, held against its maps, and made again from them."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import pytest

from dyntok.errors import DamageError
from dyntok.stats import MapStatistics
from dyntok.store import (
    CompletionRecord,
    DatasetInfo,
    StoreRoot,
    build_index,
    completed_shards,
    convert,
    gather_statistics,
    load_statistics,
    map_shape,
    open_shard_reader,
    open_shard_writer,
    repair,
    verify,
    write_manifest,
)
from dyntok.store.plan_rows import plan_rows
from dyntok.store.signed import digest_bytes, sign, unsign
from tests.support.samples import complete_store, file_bytes, make_info, make_sample, sharded_store

FORMATS = ["webdataset", "zarr"]
PATH = "shards/shard-000001.stats"


def stored(root: StoreRoot) -> list[MapStatistics]:
    info = DatasetInfo.load(root)
    found = []
    for shard in completed_shards(root):
        record = CompletionRecord.load_strict(root, shard)
        assert record.statistics is not None
        statistics = load_statistics(root, info, shard, record.statistics)
        assert statistics.to_json() == gather_statistics(open_shard_reader(root, info, shard), info).to_json()
        found.append(statistics)
    return found


def without_statistics(root: StoreRoot) -> None:
    """Make a store what it was before there were statistics."""
    for shard in completed_shards(root):
        record = CompletionRecord.load_strict(root, shard)
        root.remove(f"shards/shard-{shard:06d}.stats")
        replace(record, files=record.data_files).save(root)
    build_index(root, plan_rows(root))
    write_manifest(root)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_one_shard_or_fifty_give_the_same(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    many, samples = sharded_store(str(tmp_path / "many"), [1, 2, 1, 3] + [1] * 6, info=info)
    parts = stored(many)
    total = reduce(add, parts)
    assert total.to_json() == reduce(add, parts[::-1]).to_json()
    straight = [MapStatistics.of(sample.similarity, map_shape(info)) for sample in samples.values()]
    assert total.to_json() == reduce(add, straight).to_json()
    assert total.videos == len(samples)


def test_failed_videos_leave_no_trace_in_them(tmp_path: Path) -> None:
    root, samples = complete_store(str(tmp_path), make_info())
    assert [part.videos for part in stored(root)] == [2, 1, 1]
    assert reduce(add, stored(root)).frames == sum(sample.frame_count for sample in samples.values())


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_sample_that_was_refused_does_not_count(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    root = StoreRoot.open(str(tmp_path))
    contents = []
    for broken in (False, True):
        writer = open_shard_writer(root, info, 0)
        if broken:
            sample = make_sample(info, "broken")
            with pytest.raises(Exception, match="were announced"):
                writer.add(replace(sample, levels=(replace(sample.levels[0], tokens=[]),)), position=0, source="x")
        writer.add(make_sample(info, "a"), position=1, source="x")
        contents.append(writer.finish().statistics)
        writer.abort()
    assert contents[0] is not None and contents[0] == contents[1]


@pytest.mark.parametrize("shard_format", FORMATS)
def test_damage_is_found_and_mended_without_encoding(tmp_path: Path, shard_format: str) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    before = dict(file_bytes(root))
    for data in (before[PATH][:-9], b"", None, before[PATH].replace(b'"frames":', b'"Frames":')):
        if data is None:
            root.remove(PATH)
        else:
            root.write_atomic(PATH, data)
            with pytest.raises(DamageError, match="sha256"):
                load_statistics(root, DatasetInfo.load(root), 1, digest_bytes(PATH, before[PATH]))
        report = verify(str(tmp_path))
        assert {finding.path for finding in report.findings} == {PATH}
        assert report.repair == (f"dyntok verify {tmp_path} --repair",)
        mended = repair(str(tmp_path))
        assert [(item.path, item.what) for item in mended.mended] == [(PATH, "made anew")]
        assert mended.commands == () and not mended.set_aside
        assert verify(str(tmp_path)).ok
        after = dict(file_bytes(root))
        assert {path: data for path, data in after.items() if not path.startswith(".tmp")} == before


def test_with_a_damaged_shard_they_go(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    root.write_atomic(PATH, b"x")
    root.write_atomic("shards/shard-000001.tar", root.read_bytes("shards/shard-000001.tar")[:-1])
    report = repair(str(tmp_path))
    assert report.ok and report.commands == (f"dyntok encode --out {tmp_path}",)
    assert not root.exists(PATH)


def test_statistics_that_lie_are_found(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    content = unsign(root.read_bytes(PATH), PATH)
    content["similarity"][0] += 1
    data = sign(content)
    root.write_atomic(PATH, data)
    record = CompletionRecord.load_strict(root, 1)
    replace(record, files=(*record.data_files, digest_bytes(PATH, data))).save(root)
    write_manifest(root)
    del content["similarity"]
    with pytest.raises(DamageError, match="no statistics of this store") as caught:
        other = sign(content)
        root.write_atomic(PATH, other)
        load_statistics(root, DatasetInfo.load(root), 1, digest_bytes(PATH, other))
    assert "--recompute" in str(caught.value.hint)
    root.write_atomic(PATH, data)
    report = verify(str(tmp_path))
    assert [finding.kind for finding in report.findings] == ["shard"]
    assert "contradicts the similarity maps" in report.findings[0].message
    assert verify(str(tmp_path), deep=False).ok


def test_stores_without_them_stay_valid(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path / "old"), make_info())
    without_statistics(root)
    assert CompletionRecord.load_strict(root, 0).statistics is None
    assert verify(str(tmp_path / "old")).ok
    before = dict(file_bytes(root))
    convert(str(tmp_path / "old"), str(tmp_path / "zarr"), format="zarr")
    convert(str(tmp_path / "zarr"), str(tmp_path / "back"), format="webdataset")
    back = dict(file_bytes(StoreRoot.open(str(tmp_path / "back"))))
    assert {p: d for p, d in back.items() if p[:5] != ".tmp/"} == {p: d for p, d in before.items() if p[:5] != ".tmp/"}
    root.write_atomic(PATH, b"x")
    assert [(f.kind, f.path) for f in verify(str(tmp_path / "old")).findings] == [("extra", PATH)]
    assert [(item.path, item.what) for item in repair(str(tmp_path / "old")).mended] == [(PATH, "set aside")]
    assert verify(str(tmp_path / "old")).ok


def test_beside_a_lost_dataset_nothing_is_made_anew(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    root.write_atomic("dataset.json", b"{}")
    root.write_atomic(PATH, b"x")
    report = repair(str(tmp_path))
    assert not report.ok and "made anew" not in {item.what for item in report.mended}


@pytest.mark.parametrize("there", [True, False])
def test_both_formats_have_the_same(tmp_path: Path, there: bool) -> None:
    first, second = FORMATS if there else FORMATS[::-1]
    root, _ = complete_store(str(tmp_path / "a"), make_info(shard_format=first))
    convert(str(tmp_path / "a"), str(tmp_path / "b"), format=second)
    assert root.read_bytes(PATH) == StoreRoot.open(str(tmp_path / "b")).read_bytes(PATH)
