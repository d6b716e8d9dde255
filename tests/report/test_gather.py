"""What `gather` says of a store is what its videos say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dyntok
from dyntok.errors import DamageError, StoreError, UsageError
from dyntok.records import Grid
from dyntok.report import gather, write_tables
from dyntok.report.columns import MISSING, MOST_VALUES, OTHERS, SHOWN_VALUES
from dyntok.store import StoreRoot, build_index, write_manifest
from dyntok.store.plan_rows import plan_rows
from tests.store.test_statistics import without_statistics
from tests.support.samples import complete_store, make_info, make_plan, sharded_store, write_plan, write_shard
from tests.support.synthetic import synthetic_store

FORMATS = ["webdataset", "zarr"]


def kept(document: dict) -> dict:
    """What must not depend on how the videos lie in shards, or where the store is."""
    different = {"store", "shards", "recounted", "bytes", "by"}
    return {name: value for name, value in document.items() if name not in different}


@pytest.mark.parametrize("shard_format", FORMATS)
def test_the_curve_is_what_each_video_gives_at_each_threshold(tmp_path: Path, shard_format: str) -> None:
    """Tokens that `at` makes, up to the stored threshold."""
    info = make_info(shard_format=shard_format)
    sharded_store(str(tmp_path), [2, 1, 3], info=info)
    found = gather(str(tmp_path))
    store = dyntok.open(tmp_path)
    curve = dict(zip(found.maps.shape.edges, found.maps.curve(), strict=True))
    for edge, tokens in curve.items():
        if edge <= info.stored_threshold and (round(edge * 200) % 8 == 0 or edge in info.thresholds):
            assert tokens == sum(len(store[video_id].at(threshold=edge)) for video_id in store.ids)
    assert curve[1.0] == found.maps.patches == sum(store[i].similarity.numel() for i in store.ids)
    document = found.to_json()
    for name, tokens in document["tokens"].items():
        assert curve[float(name)] == tokens
        assert sum(size * n for size, n in enumerate(document["group_size"][name], 1)) == document["patches"]
        assert sum(document["group_size"][name]) == tokens
        frames = document["frame_tokens"][name]
        assert np.dot(frames["tokens"], frames["frames"]) == tokens == sum(document["parts"]["tokens"][name])
    json.dumps(document, allow_nan=False)


def test_shards_and_their_order_do_not_matter(tmp_path: Path) -> None:
    """The same fifty videos in one shard, in fifty, and in fifty of other orders; read, and counted again."""
    info = make_info()
    ids = [f"v{number:02}" for number in range(50)]
    seeds = {name: number for number, name in enumerate(ids)}
    shuffled = np.random.default_rng(0).permutation(ids).tolist()
    texts = []
    for folder, order, each in (
        ("one", ids, 50),
        ("many", ids, 1),
        ("back", ids[::-1], 1),
        ("any", shuffled, 1),
    ):
        root = StoreRoot.open(str(tmp_path / folder), create=True)
        info.save(root)
        shards = [make_plan(n, order[first : first + each]) for n, first in enumerate(range(0, 50, each))]
        entries = [entry for shard in shards for entry in shard]
        write_plan(root, entries)
        for shard in shards:
            write_shard(root, info, shard, seeds=seeds)
        build_index(root, iter(entries))
        write_manifest(root)
        for recompute in (False, True):
            found = gather(str(tmp_path / folder), recompute=recompute)
            assert (found.shards, found.recounted) == (len(shards), len(shards) * recompute)
            texts.append(json.dumps(kept(found.to_json())))
    assert len(set(texts)) == 1


@pytest.mark.parametrize("place", ["local", "memory"])
@pytest.mark.parametrize("shard_format", FORMATS)
def test_counted_again_or_read_they_are_the_same(tmp_path: Path, shard_format: str, place: str) -> None:
    url = str(tmp_path) if place == "local" else f"memory://{uuid.uuid4().hex}"
    root, _ = complete_store(url, make_info(shard_format=shard_format))
    stored = gather(url)
    again = gather(url, recompute=True)
    assert (stored.recounted, again.recounted) == (0, 3)
    assert kept(stored.to_json()) == kept(again.to_json())
    without_statistics(root)
    old = gather(url)
    assert old.recounted == 3 and kept(old.to_json()) == kept(stored.to_json())


def test_without_a_manifest_the_records_tell(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    before = gather(str(tmp_path))
    root.remove("manifest.json")
    after = gather(str(tmp_path))
    assert after.recounted == 0 and after.to_json() == before.to_json()
    root.remove("index.parquet")
    with pytest.raises(StoreError, match="not complete"):
        gather(str(tmp_path))


def test_an_index_of_other_videos_is_damage(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    root.remove("shards/shard-000001.json")
    build_index(root, plan_rows(root))
    root.remove("manifest.json")
    gather(str(tmp_path))
    complete_store(str(tmp_path / "other"), make_info())
    data = (tmp_path / "other/shards/shard-000001.json").read_bytes()
    root.write_atomic("shards/shard-000001.json", data)
    with pytest.raises(DamageError, match="index names"):
        gather(str(tmp_path))


def test_an_empty_store_has_figures(tmp_path: Path) -> None:
    """Every video failed."""
    sharded_store(str(tmp_path), [2], failed=("s0/v0.mp4", "s0/v1.mp4"))
    document = gather(str(tmp_path)).to_json()
    assert document["failed"] == 2 and document["percentiles"]["frames"] == {}
    assert set(document["curve"]["kept"]) == {None}
    assert [failure["id"] for failure in document["failures"]["truncated"]] == ["s0/v0.mp4", "s0/v1.mp4"]


# columns of the manifest ---------------------------------------------------------------------------------------


def store_with_columns(out: Path, extras: list[str], failed: tuple[str, ...] = ()) -> StoreRoot:
    info = make_info()
    root = StoreRoot.open(str(out), create=True)
    info.save(root)
    entries = [
        replace(entry, extra=extra)
        for entry, extra in zip(make_plan(0, [f"v{n}" for n in range(len(extras))]), extras, strict=True)
    ]
    write_plan(root, entries)
    write_shard(root, info, entries, failed=failed, frames=1)
    build_index(root, iter(entries))
    write_manifest(root)
    return root


def test_sums_by_a_column(tmp_path: Path) -> None:
    extras = ['{"kind":"a"}', '{"kind":"b"}', '{"kind":"a","n":[1,2]}', "{}", '{"kind":null}', '{"kind":7}']
    store_with_columns(tmp_path, extras, failed=("v2",))
    by = gather(str(tmp_path), by="kind").to_json()["by"]
    found = {total["value"]: (total["videos"], total["done"], total["failed"]) for total in by["values"]}
    assert by["column"] == "kind"
    assert found == {"a": (2, 1, 1), MISSING: (2, 2, 0), "7": (1, 1, 0), "b": (1, 1, 0)}
    whole = gather(str(tmp_path)).videos.totals
    for name in ("frames", "patches", "bytes"):
        attribute = "nbytes" if name == "bytes" else name
        assert sum(total[name] for total in by["values"]) == getattr(whole, attribute)
    assert gather(str(tmp_path), by="n").to_json()["by"]["values"][1]["value"] == "[1, 2]"
    with pytest.raises(UsageError, match="no video") as caught:
        gather(str(tmp_path), by="Kind")
    assert caught.value.hint == "one of kind, n"


def test_retried_videos_count_once_by_their_column(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    entries = [replace(entry, extra=json.dumps({"id": entry.id})) for entry in plan_rows(root)]
    write_plan(root, entries)
    by = gather(str(tmp_path), by="id").to_json()["by"]
    found = {total["value"]: (total["videos"], total["done"]) for total in by["values"]}
    assert found == {v: (1, int(v != "bad.mp4")) for v in ("a.mp4", "b/ü.mp4", "bad.mp4", "d.mp4", "late.mp4")}


def test_columns_of_many_values_stay_bounded(tmp_path: Path) -> None:
    synthetic_store(tmp_path, shards=3, videos=500, logs=False, statistics=True)
    root = StoreRoot.open(str(tmp_path))
    entries = [
        replace(entry, extra=json.dumps({"n": number, "text": "x" * 300}))
        for number, entry in enumerate(plan_rows(root))
    ]
    index = root.local_path("index.parquet")
    assert index is not None
    build_index(root, plan_rows(root))
    write_plan(root, entries)
    values = gather(str(tmp_path), by="n").to_json()["by"]["values"]
    assert len(entries) > MOST_VALUES and len(values) == SHOWN_VALUES + 1
    assert values[-1]["value"] == OTHERS
    assert sum(total["videos"] for total in values) == len(entries)
    (long,) = gather(str(tmp_path), by="text").to_json()["by"]["values"]
    assert len(long["value"]) == 203


# tables ----------------------------------------------------------------------------------------------------------


def test_tables_hold_the_videos_and_the_curve(tmp_path: Path) -> None:
    complete_store(str(tmp_path / "a"), make_info())
    complete_store(str(tmp_path / "b"), make_info(thresholds=(0.45, 0.6), grid=Grid(2, 3)))
    found = [gather(str(tmp_path / name)) for name in "ab"]
    videos, curve = (pq.read_table(path) for path in write_tables(found, str(tmp_path / "t.parquet")))
    assert videos.num_rows == 10
    assert set(videos["store"].to_pylist()) == {str(tmp_path / "a"), str(tmp_path / "b")}
    rows = [row for row in videos.to_pylist() if row["store"].endswith("/b")]
    assert {row["tokens_0.40"] for row in rows} == {None}
    assert sum(row["tokens_0.45"] for row in rows) == found[1].videos.totals.tokens[0]
    first = [row for row in curve.to_pylist() if row["store"].endswith("/a")]
    assert [row["tokens"] for row in first] == found[0].maps.curve()
    with pytest.raises(UsageError, match=r"\.parquet"):
        write_tables(found, str(tmp_path / "t.csv"))
    with pytest.raises(StoreError, match="cannot write"):
        write_tables(found, str(tmp_path / "nowhere/t.parquet"))


# size ------------------------------------------------------------------------------------------------------------

PEAK = r"""
import re, sys
from pathlib import Path
from dyntok.report import gather

def peak():  # not ru_maxrss, which begins with that of the parent
    return re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]

gather(sys.argv[1])
gather(sys.argv[1])  # the allocator takes some more the second time, whatever the store
before = peak()
found = gather(sys.argv[2])
print(before, peak(), found.videos.totals.videos)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path: Path) -> None:
    for name, shards in (("some", 70), ("many", 140)):
        root = synthetic_store(tmp_path / name, shards=shards, videos=2000, logs=False, statistics=True)
        build_index(root, plan_rows(root))
        write_manifest(root)
    paths = [str(tmp_path / "some"), str(tmp_path / "many")]
    # Arrow's own pool keeps what its threads have freed for a while, which moves the peak by what is to be seen here.
    quiet = {"ARROW_DEFAULT_MEMORY_POOL": "system", "ARROW_IO_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *paths],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=True,
    )
    print(ran.stdout)
    before, after, videos = map(int, ran.stdout.split())
    assert videos == 280_000
    assert after - before < 16_000, f"{before} kB, then {after} kB"
