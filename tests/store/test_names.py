"""Names: unambiguous, safe, inside the store."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dyntok.errors import StoreError
from dyntok.store import StoreRoot, sample_key, threshold_name
from dyntok.store.names import (
    check_path,
    is_ignored,
    level_suffix,
    record_path,
    shard_data_path,
    shard_of_path,
    shard_of_record,
    shard_of_statistics,
    statistics_path,
)


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
    ("video_id", "slug"),
    [
        ("a/b c.mp4", "a-b-c-mp4"),
        ("Zoë_Æ7.mp4", "Zoe_7-mp4"),
        ("(X0..9X)", "X0-9X"),
        ("x" * 60 + "y" * 47, "x" + "y" * 47),
        ("视频", ""),
        ("\udcff", ""),
    ],
)
def test_a_key_is_the_end_of_the_id_and_its_digest(video_id: str, slug: str) -> None:
    digest = hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    assert sample_key(video_id) == (f"{slug}-{digest}" if slug else digest)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\\b", "C:/x", "c:x", "a\0b", ".."]
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


@given(st.integers(0, 10**9 - 1))
@example(10**6)
def test_every_path_of_a_shard_names_it(shard: int) -> None:
    stem = f"shards/shard-{str(shard).rjust(6, '0')}"
    tar, group = shard_data_path(shard, "webdataset"), shard_data_path(shard, "zarr")
    paths = (record_path(shard), statistics_path(shard), tar, group)
    assert paths == (f"{stem}.json", f"{stem}.stats", f"{stem}.tar", f"{stem}.zarr")
    for path in (*paths, f"{group}/tokens/c/0/0"):
        assert check_path(path) == path and not is_ignored(path)
        assert shard_of_path(path) == shard
        assert shard_of_record(path) == (shard if path == f"{stem}.json" else None)
        assert shard_of_statistics(path) == (shard if path == f"{stem}.stats" else None)
    for path in (f"{tar}/x", f"{stem}", f"{stem}.jsonl", f"x/{tar}", f"{stem}.zarrs/x", tar.replace("-", "-0")):
        assert shard_of_path(path) is None


def test_logs_temporary_files_and_what_was_set_aside_are_no_part_of_a_store() -> None:
    for path in (".lock", ".tmp/x", ".tmp/a/b", "logs/run/x.jsonl", ".set-aside/shards/x"):
        assert is_ignored(path)
    for path in ("dataset.json", "shards/logs/x", "shards/.lock", ".lock/x", "a/.tmp/b", "logs.json", "x/logs"):
        assert not is_ignored(path)
