"""What a plan says of a fresh listing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, FrozenPlan, PlanDifference, append_entries, list_inputs
from dyntok.errors import InputError, StoreMismatchError
from tests.corpus.helpers import missing_item, plan_bytes, plan_of, write_files


def listing(folder: Path) -> list[CorpusItem]:
    return list(list_inputs([str(folder)]))


def test_same_corpus(clip_folder: Path) -> None:
    for full in (False, True):
        plan = plan_of(listing(clip_folder), full_fingerprint=full)
        assert plan.compare(listing(clip_folder), full_fingerprint=full) == PlanDifference(unchanged_count=4)


def test_each_kind_of_difference(tmp_path: Path) -> None:
    write_files(
        tmp_path, *(f"{name}.mp4" for name in ("same", "touched", "edited", "longer", "gone", "broken"))
    )
    for name in ("later", "never"):
        (tmp_path / f"{name}.mp4").symlink_to(tmp_path / f"{name}.data")
    plan = plan_of(listing(tmp_path))
    os.utime(tmp_path / "touched.mp4", (1, 1))
    (tmp_path / "edited.mp4").write_bytes(b"EDITED.mp4")
    (tmp_path / "longer.mp4").write_bytes(b"longer.mp4, and longer")
    (tmp_path / "gone.mp4").unlink()
    (tmp_path / "broken.mp4").unlink()
    (tmp_path / "broken.mp4").symlink_to("nowhere")
    write_files(tmp_path, "later.data", "new.mp4")
    difference = plan.compare(listing(tmp_path))
    assert [item.id for item in difference.new] == ["new.mp4"]
    assert [(c.id, c.old_source, c.new_source) for c in difference.changed] == [
        ("edited.mp4", "edited.mp4", "edited.mp4"),
        ("longer.mp4", "longer.mp4", "longer.mp4"),
    ]
    assert all(c.old_fingerprint != c.new_fingerprint for c in difference.changed)
    assert difference.changed[1].new_fingerprint == "size:22"
    assert sorted(difference.missing) == ["broken.mp4", "gone.mp4"]
    assert difference.recovered == ("later.mp4",)
    assert (difference.new_count, difference.changed_count, difference.missing_count) == (1, 2, 2)
    assert (difference.recovered_count, difference.unreadable_count, difference.unchanged_count) == (1, 1, 2)


def test_full_fingerprints_see_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(300_000))
    cheap, full = plan_of(listing(tmp_path)), plan_of(listing(tmp_path), full_fingerprint=True)
    path.write_bytes(bytes(150_000) + b"x" + bytes(149_999))
    assert cheap.compare(listing(tmp_path)).changed_count == 0
    assert full.compare(listing(tmp_path)).changed_count == 1
    with pytest.raises(StoreMismatchError, match="cheap fingerprints"):
        cheap.compare(listing(tmp_path), full_fingerprint=True)


def test_the_latest_attempt_counts(tmp_path: Path) -> None:
    write_files(tmp_path, "a.mp4")
    plan = plan_of(listing(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"mended")
    assert plan.compare(listing(tmp_path)).changed_count == 1
    out = io.BytesIO()
    append_entries(plan, plan.shard(0), out, estimate_bytes=lambda item: 1, shard_size_bytes=1)
    assert FrozenPlan.open(out.getvalue()).compare(listing(tmp_path)) == PlanDifference(unchanged_count=1)


def test_other_content_under_the_same_id_names_both_sources(tmp_path: Path) -> None:
    write_files(tmp_path, "one/x.mp4", "two/x.mp4")
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"path": "{name}/x.mp4", "id": "x"}}\n')
    plan = plan_of(list_inputs([str(tmp_path / "one.jsonl")]))
    (changed,) = plan.compare(list_inputs([str(tmp_path / "two.jsonl")])).changed
    assert (changed.old_source, changed.new_source) == ("one/x.mp4", "two/x.mp4")


def test_an_id_listed_twice() -> None:
    plan = plan_of([missing_item("a"), missing_item("b")])
    with pytest.raises(InputError, match="'a' is listed twice"):
        plan.compare([missing_item("a"), missing_item("b"), missing_item("a", "/other.mp4")])


def test_examples_are_capped_and_counts_are_not() -> None:
    plan = plan_of(missing_item(f"old{i:04}") for i in range(500))
    difference = plan.compare(missing_item(f"new{i:04}") for i in range(300))
    assert (difference.new_count, len(difference.new)) == (300, 100)
    assert (difference.missing_count, len(difference.missing)) == (500, 100)
    assert difference.missing[0] == "old0000"


@settings(max_examples=40, deadline=None)
@given(
    planned=st.sets(st.integers(0, 20), min_size=1),
    listed=st.permutations(range(20)),
    count=st.integers(0, 20),
)
def test_new_and_missing_are_set_differences(planned: set[int], listed: list[int], count: int) -> None:
    listed = listed[:count]
    plan = FrozenPlan.open(plan_bytes(missing_item(f"v{i}") for i in planned))
    difference = plan.compare(missing_item(f"v{i}") for i in listed)
    assert [item.id for item in difference.new] == [f"v{i}" for i in listed if i not in planned]
    assert set(difference.missing) == {f"v{i}" for i in planned - set(listed)}
    assert difference.unreadable_count == len(planned & set(listed))
