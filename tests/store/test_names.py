"""Names: unambiguous, safe, inside the store."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok.errors import StoreError
from dyntok.store import StoreRoot, sample_key, threshold_name
from dyntok.store.names import check_path, level_suffix, shard_of_record


@pytest.mark.parametrize(
    ("threshold", "name", "suffix"),
    [
        (0.4, "0.40", "t040"),
        (0.405, "0.405", "t0405"),
        (0.0405, "0.0405", "t00405"),
        (1.0, "1.00", "t100"),
        (0.0, "0.00", "t000"),
        (-0.0, "0.00", "t000"),
        (-0.1, "-0.10", "tm010"),
        (0.1234, "0.1234", "t01234"),
    ],
)
def test_threshold_names(threshold: float, name: str, suffix: str) -> None:
    assert threshold_name(threshold) == name
    assert level_suffix(threshold) == suffix


def test_no_two_thresholds_have_the_same_name() -> None:
    thresholds = [number / 10000 for number in range(-10000, 10001)]
    assert all(float(threshold_name(threshold)) == threshold for threshold in thresholds)
    suffixes = {level_suffix(threshold) for threshold in thresholds}
    assert len(suffixes) == len(thresholds)
    assert all(re.fullmatch(r"tm?[01][0-9]{2,4}", suffix) for suffix in suffixes)


@pytest.mark.parametrize("threshold", [1.5, -2.0, 0.12345, float("nan"), float("inf")])
def test_other_thresholds_have_no_name(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        threshold_name(threshold)


@given(st.text(max_size=200))
def test_keys_are_safe_in_tars_and_folders(video_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{16,65}", sample_key(video_id))


@given(st.lists(st.text(st.sampled_from("aA./-_é "), max_size=6), unique=True, max_size=30))
def test_keys_differ_where_ids_do_even_without_case(ids: list[str]) -> None:
    assert len({sample_key(video_id).lower() for video_id in ids}) == len(ids)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\\b", "C:/x", "a\0b", ".."]
)
def test_paths_outside_the_store_are_refused(path: str, tmp_path) -> None:
    with pytest.raises(StoreError, match="not a path inside a store"):
        check_path(path)
    with pytest.raises(StoreError, match="not a path inside a store"):
        StoreRoot.open(str(tmp_path)).read_bytes(path)


def test_only_records_are_records() -> None:
    assert shard_of_record("shards/shard-000012.json") == 12
    assert shard_of_record("shards/shard-1234567.json") == 1234567
    for path in (
        "shards/shard-12.json",
        "shards/shard-0000012.json",
        "x/shard-000001.json",
        "shards/shard-000001.tar",
    ):
        assert shard_of_record(path) is None
