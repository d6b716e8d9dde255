"""Freezing a corpus into a plan, reading it back, adding to it."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, FrozenPlan, append_entries, freeze_plan, list_inputs
from dyntok.corpus import freeze as freeze_module
from dyntok.errors import DamageError, InputError, StoreError, StoreVersionError
from dyntok.records import PlanEntry, SourceRef
from tests.corpus.helpers import appended, missing_item, plan_bytes, plan_of, write_files

COLUMNS = {
    "shard": "int32",
    "position": "int32",
    "id": "string",
    "source": "string",
    "path": "string",
    "offset": "int64",
    "length": "int64",
    "size_bytes": "int64",
    "fingerprint": "string",
    "extra": "string",
    "attempt": "int16",
}


def test_real_clips(tmp_path: Path, clip_folder: Path) -> None:
    items = list(list_inputs([str(clip_folder)]))
    steps: list[int] = []
    freeze_plan(
        items,
        tmp_path / "plan.parquet",
        estimate_bytes=lambda item: item.size_bytes or 0,
        shard_size_bytes=1_100_000,
        on_progress=steps.append,
    )
    assert steps == [4]
    table = pq.read_table(tmp_path / "plan.parquet")
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    assert table["shard"].to_pylist() == [0, 1, 1, 2]
    assert table["position"].to_pylist() == [0, 0, 1, 0]
    assert table["path"].to_pylist() == [item.ref.path for item in items]
    with FrozenPlan.open(tmp_path / "plan.parquet") as plan:
        assert (plan.videos, plan.rows, plan.shards, plan.shard_numbers) == (4, 4, 3, range(3))
        assert [entry.id for entry in plan.shard(1)] == ["bikes.mp4", "carphone_distorted.mp4"]
        assert [entry.ref for entry in plan.entries()] == [item.ref for item in items]
        for missing in (-1, 3):
            with pytest.raises(IndexError):
                plan.shard(missing)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.parquet"]


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    shard_size=st.integers(1, 40),
    max_videos=st.integers(1, 8),
)
def test_packing(sizes: list[int], shard_size: int, max_videos: int) -> None:
    items = [missing_item(f"v{i}") for i in range(len(sizes))]
    estimate = {item.id: size for item, size in zip(items, sizes, strict=True)}
    plan = plan_of(
        items,
        estimate=lambda item: estimate[item.id],
        shard_size_bytes=shard_size,
        max_videos_per_shard=max_videos,
    )
    shards = [plan.shard(number) for number in plan.shard_numbers]
    assert [entry.id for shard in shards for entry in shard] == [item.id for item in items]
    assert list(plan.entries()) == [entry for shard in shards for entry in shard]
    for number, shard in zip(plan.shard_numbers, shards, strict=True):
        assert [(entry.shard, entry.position) for entry in shard] == [(number, i) for i in range(len(shard))]
        total = sum(estimate[entry.id] for entry in shard)
        assert 1 <= len(shard) <= max_videos
        assert total <= shard_size or len(shard) == 1
    for shard, after in pairwise(shards):  # greedy: the next one would not have fitted
        total = sum(estimate[entry.id] for entry in [*shard, after[0]])
        assert total > shard_size or len(shard) == max_videos


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20)
plain_items = st.builds(
    CorpusItem,
    id=texts.filter(lambda text: text.strip()),
    source=texts,
    ref=st.builds(SourceRef, texts.map(lambda t: "/nowhere/" + t), st.none(), st.none()),
    size_bytes=st.none() | st.integers(0, 2**62),
    extra=st.just("{}") | st.just('{"é":[1,null]}'),
)


@settings(max_examples=60, deadline=None)
@given(items=st.lists(plain_items, min_size=1, max_size=20, unique_by=lambda item: item.id))
def test_round_trip(items: list[CorpusItem]) -> None:
    content = plan_bytes(items, shard_size_bytes=3)
    assert content == plan_bytes(iter(items), shard_size_bytes=3, fingerprint_jobs=1)
    for source in (content, io.BytesIO(content)):
        entries = list(FrozenPlan.open(source).entries())
        assert [(e.id, e.source, e.ref, e.size_bytes, e.extra) for e in entries] == [
            (i.id, i.source, i.ref, i.size_bytes, i.extra) for i in items
        ]
        assert all(e.attempt == 1 and e.fingerprint is None for e in entries)


def test_bytes_do_not_depend_on_the_process(tmp_path: Path, clip_folder: Path) -> None:
    code = (
        "import sys; from dyntok.corpus import *; freeze_plan(list_inputs([sys.argv[1]]), sys.argv[2],"
        " estimate_bytes=lambda i: 1, shard_size_bytes=2, fingerprint_jobs=int(sys.argv[3]))"
    )
    for jobs in ("1", "7"):
        subprocess.run([sys.executable, "-c", code, clip_folder, tmp_path / jobs, jobs], check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "7").read_bytes()


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 4, so that a few videos cross their borders."""
    monkeypatch.setattr(freeze_module, "ROW_GROUP", 4)


@pytest.mark.usefixtures("small_groups")
def test_shards_across_row_groups(tmp_path: Path) -> None:
    items = [missing_item(f"v{i:02}") for i in range(23)]
    path = tmp_path / "plan.parquet"
    freeze_plan(items, path, estimate_bytes=lambda item: 1, shard_size_bytes=9)
    assert pq.ParquetFile(path).num_row_groups == 6
    plan = FrozenPlan.open(path)
    assert [len(plan.shard(i)) for i in (2, 0, 1)] == [5, 9, 9]
    assert [plan.entry(row).id for row in (22, 0, 11)] == ["v22", "v00", "v11"]
    assert [entry.id for entry in plan.entries()] == [item.id for item in items]
    assert len(plan._groups) == 2  # a long plan is not held in memory


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 3), (0, 4), (2, 18), (5, 19)])
def test_clash_names_both_inputs(tmp_path: Path, first: int, second: int) -> None:
    items = [missing_item(f"v{i:02}", f"/data/{i}.mp4") for i in range(20)]
    items[second] = missing_item(f"v{first:02}", f"/data/{second}.mp4")
    with pytest.raises(InputError) as caught:
        freeze_plan(items, tmp_path / "plan.parquet", estimate_bytes=lambda item: 1, shard_size_bytes=3)
    assert f"/data/{first}.mp4" in caught.value.message
    assert f"/data/{second}.mp4" in caught.value.message
    assert caught.value.hint and "manifest" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_two_folders_that_clash_and_how_a_common_parent_mends_it(tmp_path: Path) -> None:
    write_files(tmp_path, "one/a.mp4", "two/a.mp4")
    with pytest.raises(InputError, match=r"one/a\.mp4 and .*two/a\.mp4"):
        plan_bytes(list_inputs([str(tmp_path / "one"), str(tmp_path / "two")]))
    assert plan_of(list_inputs([str(tmp_path)])).videos == 2
    with pytest.raises(InputError, match="given twice"):
        plan_bytes(list_inputs([str(tmp_path / "one"), str(tmp_path / "one/a.mp4")]))


def test_messages_hold_no_credentials() -> None:
    items = [missing_item("a", f"s3://KEY:SECRET@b{i}/x.mp4?sig=SECRET") for i in range(2)]
    with pytest.raises(InputError, match=r"s3://b0/x\.mp4 and s3://b1/x\.mp4") as caught:
        plan_bytes(items)
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize("video_id", ["", "  ", "a\nb", "a\x7f", "\u2028", "x" * 1025, "é" * 513])
def test_ids_that_are_refused(video_id: str) -> None:
    with pytest.raises(InputError, match="the id") as caught:
        plan_bytes([missing_item(video_id)])
    assert caught.value.message.isprintable()


def test_long_and_odd_ids_that_are_fine() -> None:
    ids = ["x" * 1024, "é" * 512, " a ", "../a", "a\u00a0b", "🎬"]
    assert [e.id for e in plan_of(map(missing_item, ids)).entries()] == ids


def test_progress_is_told_now_and_then_as_the_number_so_far() -> None:
    steps: list[int] = []
    plan = plan_of([missing_item(f"v{i}") for i in range(150)], on_progress=steps.append)
    assert steps == [64, 128, 150]
    steps.clear()
    add(plan, [missing_item("new")], on_progress=steps.append)
    assert steps == [1]


def test_empty_corpus_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "plan.parquet"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="no video"):
        freeze_plan([], target, estimate_bytes=lambda item: 1, shard_size_bytes=1)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_while_listing_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "a.mp4"}\n' * 1 + "{}\n")
    out = tmp_path / "plan.parquet"
    with pytest.raises(InputError, match="line 2"):
        freeze_plan(list_inputs([str(tmp_path / "m.jsonl")]), out, estimate_bytes=lambda item: 1, shard_size_bytes=1)
    assert not list(tmp_path.glob("*plan*"))


@pytest.mark.parametrize("options", [{"shard_size_bytes": 0}, {"max_videos_per_shard": 0}])
def test_impossible_packing(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="packing"):
        plan_bytes([missing_item("a")], **options)
    with pytest.raises(ValueError, match="-5 bytes"):
        plan_bytes([missing_item("a")], estimate=lambda item: -5)


def test_what_is_no_plan(tmp_path: Path) -> None:
    schema = pa.schema([("shard", pa.int32())], metadata={b"dyntok.plan": b"2"})
    for content, error in (
        (b"", DamageError),
        (b"PAR1 no PAR1", DamageError),
        (_parquet(pa.table({"shard": [0]})), DamageError),
        (_parquet(pa.table({"shard": pa.array([0], pa.int32())}, schema=schema)), StoreVersionError),
        (plan_bytes([missing_item("a")])[:-20], DamageError),
    ):
        with pytest.raises(error):
            FrozenPlan.open(content)
    with pytest.raises(StoreError, match=r"gone\.parquet"):
        FrozenPlan.open(tmp_path / "gone.parquet")


def test_shards_out_of_order_are_damage() -> None:
    table = pq.read_table(io.BytesIO(plan_bytes([missing_item(f"v{i}") for i in range(6)], shard_size_bytes=2)))
    for rows in ([2, 3, 0, 1, 4, 5], [0, 1, 4, 5], [2, 3, 4, 5]):
        with pytest.raises(DamageError):
            FrozenPlan.open(_parquet(table.take(rows)))
    with pytest.raises(DamageError):
        FrozenPlan.open(_parquet(table.take([1, 0, 2, 3]))).shard(0)


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def add(plan: FrozenPlan, items: list[CorpusItem | PlanEntry], **options: Any) -> FrozenPlan:
    defaults = {"estimate_bytes": lambda item: 1, "shard_size_bytes": 2}
    return FrozenPlan.open(appended(plan, items, **{**defaults, **options}))


@pytest.mark.usefixtures("small_groups")
def test_extend(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    old = [missing_item(f"v{i}") for i in range(10)]
    freeze_plan(old, path, estimate_bytes=lambda item: 1, shard_size_bytes=4)
    before = list(FrozenPlan.open(path).entries())
    groups = pq.ParquetFile(path).num_row_groups
    listing = [missing_item("new1"), *reversed(old), missing_item("new0"), missing_item("new2")]
    with FrozenPlan.open(path) as plan:
        append_entries(plan, listing, path, estimate_bytes=lambda item: 1, shard_size_bytes=2)
    plan = FrozenPlan.open(path)
    after = list(plan.entries())
    assert after[:10] == before
    assert [(e.id, e.shard, e.position) for e in after[10:]] == [
        ("new1", 3, 0),
        ("new0", 3, 1),
        ("new2", 4, 0),
    ]
    assert (plan.videos, plan.rows, plan.shards) == (13, 13, 5)
    old_file, new_file = pq.ParquetFile(io.BytesIO(plan_bytes(old, shard_size_bytes=4))), pq.ParquetFile(path)
    for group in range(groups):
        assert new_file.read_row_group(group).equals(old_file.read_row_group(group))


def test_retry_reads_the_file_again(tmp_path: Path) -> None:
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "c.mp4").symlink_to("later.mp4")
    plan = plan_of(list_inputs([str(tmp_path)]), shard_size_bytes=2)
    assert [e.fingerprint is None for e in plan.entries()] == [False, False, True]
    write_files(tmp_path, "later.mp4")
    failed = [plan.shard(1)[0], plan.shard(0)[1]]
    plan = add(plan, [*failed])
    assert [(e.id, e.attempt, e.shard, e.position) for e in plan.shard(2)] == [
        ("c.mp4", 2, 2, 0),
        ("b.mp4", 2, 2, 1),
    ]
    assert plan.shard(2)[0].size_bytes == len("later.mp4") and plan.shard(2)[0].fingerprint
    plan = add(plan, [plan.shard(2)[0], *list_inputs([str(tmp_path)])])
    assert [(e.id, e.attempt, e.shard) for e in plan.latest_attempts()] == [
        ("a.mp4", 1, 0),
        ("b.mp4", 2, 2),
        ("c.mp4", 3, 3),
        ("later.mp4", 1, 3),
    ]
    assert (plan.videos, plan.rows) == (4, 7)
    # An older entry of an id still gives the next attempt, and a tar member is looked at in its tar.
    assert add(plan, [failed[0]]).shard(4)[0].attempt == 4


def test_retry_of_a_tar_member(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(bytes(100))
    ref = SourceRef(str(tmp_path / "t.tar"), 20, 50)
    plan = plan_of([CorpusItem("m", "t.tar!m", ref, 50)])
    again = add(plan, [plan.entry(0)]).entry(1)
    assert (again.size_bytes, again.fingerprint, again.ref) == (50, plan.entry(0).fingerprint, ref)
    (tmp_path / "t.tar").write_bytes(bytes(60))
    assert add(plan, [plan.entry(0)]).entry(1).size_bytes is None


def test_append_refusals() -> None:
    plan = plan_of([missing_item("a"), missing_item("b")])
    with pytest.raises(InputError, match="given twice"):
        add(plan, [missing_item("c"), missing_item("c")])
    with pytest.raises(InputError, match="given twice"):
        add(plan, [plan.entry(0), plan.entry(0)])
    with pytest.raises(InputError, match="not in the plan"):
        add(plan, [PlanEntry(0, 0, "z", "z", SourceRef("/z"), None, None)])


@pytest.mark.usefixtures("small_groups")
def test_a_clash_among_what_is_appended() -> None:
    plan = plan_of([missing_item(f"v{i}") for i in range(6)])
    more = [missing_item(f"w{i}", f"/data/{i}.mp4") for i in range(10)]
    assert add(plan, [*more]).shard_numbers == range(6)
    more[9] = missing_item("w2", "/data/again.mp4")
    with pytest.raises(InputError, match=r"/data/2\.mp4 and /data/again\.mp4"):
        add(plan, [*more])


def test_nothing_to_append_keeps_the_content() -> None:
    content = plan_bytes([missing_item("a"), missing_item("b")])
    options: dict[str, Any] = {"estimate_bytes": lambda item: 1, "shard_size_bytes": 2}
    assert appended(FrozenPlan.open(content), [missing_item("b")], **options) == content


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=5))
def test_extending_step_by_step_keeps_every_id_once(steps: list[set[int]]) -> None:
    plan = plan_of([missing_item(f"v{i}") for i in sorted(steps[0])], shard_size_bytes=3)
    for step in steps[1:]:
        plan = add(plan, [missing_item(f"v{i}") for i in sorted(step)])
    ids = [entry.id for number in plan.shard_numbers for entry in plan.shard(number)]
    assert len(ids) == len(set(ids)) == plan.videos
    assert set(ids) == {f"v{i}" for i in set().union(*steps)}
