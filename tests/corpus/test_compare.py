"""What a plan says of a fresh listing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, FrozenPlan, PlanDifference, compare_plan, list_inputs
from dyntok.errors import InputError, StoreMismatchError
from tests.corpus.helpers import appended, missing_item, plan_bytes, plan_of, write_files


def listing(folder: Path) -> list[CorpusItem]:
    return list(list_inputs([str(folder)]))


def test_same_corpus(clip_folder: Path) -> None:
    for full in (False, True):
        plan = plan_of(listing(clip_folder), full_fingerprint=full)
        assert compare_plan(plan, listing(clip_folder), full_fingerprint=full) == PlanDifference()


def test_each_kind_of_difference(tmp_path: Path) -> None:
    write_files(tmp_path, *(f"{name}.mp4" for name in ("same", "touched", "edited", "longer", "gone", "broken")))
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
    # What cannot be read now, or could not when it was planned, did not change.
    assert compare_plan(plan, listing(tmp_path)) == PlanDifference(("new.mp4",), 1, ("edited.mp4", "longer.mp4"), 2)
    assert compare_plan(plan, listing(tmp_path), mended={"edited.mp4", "same.mp4"}) == PlanDifference(
        ("new.mp4",), 1, ("longer.mp4",), 1
    )


def test_full_fingerprints_see_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(300_000))
    cheap, full = plan_of(listing(tmp_path)), plan_of(listing(tmp_path), full_fingerprint=True)
    path.write_bytes(bytes(150_000) + b"x" + bytes(149_999))
    assert compare_plan(cheap, listing(tmp_path)).changed_count == 0
    assert compare_plan(full, listing(tmp_path)).changed_count == 1
    with pytest.raises(StoreMismatchError, match="cheap fingerprints"):
        compare_plan(cheap, listing(tmp_path), full_fingerprint=True)


def test_the_latest_attempt_counts(tmp_path: Path) -> None:
    write_files(tmp_path, "a.mp4")
    plan = plan_of(listing(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"mended")
    assert compare_plan(plan, listing(tmp_path)).changed_count == 1
    options: dict[str, Any] = {"estimate_bytes": lambda item: 1, "shard_size_bytes": 1}
    again = FrozenPlan.open(appended(plan, plan.shard(0), **options))
    assert compare_plan(again, listing(tmp_path)) == PlanDifference()


def test_an_id_listed_twice() -> None:
    plan = plan_of([missing_item("a"), missing_item("b")])
    with pytest.raises(InputError, match="'a' is listed twice"):
        compare_plan(plan, [missing_item("a"), missing_item("b"), missing_item("a", "/other.mp4")])


def test_examples_are_capped_and_counts_are_not(tmp_path: Path) -> None:
    write_files(tmp_path, *(f"old{i:04}.mp4" for i in range(300)))
    plan = plan_of(listing(tmp_path), shard_size_bytes=1000)
    for path in tmp_path.iterdir():
        path.write_bytes(b"other")
    new = [missing_item(f"new{i:04}") for i in range(300)]
    difference = compare_plan(plan, [*listing(tmp_path), *new])
    assert (difference.new_count, len(difference.new), difference.new[0]) == (300, 100, "new0000")
    assert (difference.changed_count, len(difference.changed)) == (300, 100)
    assert difference.changed[0] == "old0000.mp4"
    mended = {f"old{i:04}.mp4" for i in range(300)}
    assert compare_plan(plan, listing(tmp_path), mended=mended) == PlanDifference()


@settings(max_examples=40, deadline=None)
@given(
    planned=st.sets(st.integers(0, 20), min_size=1),
    listed=st.permutations(range(20)),
    count=st.integers(0, 20),
)
def test_new_is_a_set_difference(planned: set[int], listed: list[int], count: int) -> None:
    listed = listed[:count]
    plan = FrozenPlan.open(plan_bytes(missing_item(f"v{i}") for i in planned))
    difference = compare_plan(plan, (missing_item(f"v{i}") for i in listed))
    assert list(difference.new) == [f"v{i}" for i in listed if i not in planned]
    assert difference.changed_count == 0
