"""The rules of a sample, each broken alone: what is written, what is read, and the scales of int8 tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyntok.errors import DamageError, StoreError, VideoError
from dyntok.records import Grid, Sample
from dyntok.store import StoreRoot, VideoHead, open_shard_writer, samples, verify
from dyntok.store.samples import (
    all_finite,
    check_sample,
    checked_chunks,
    count_tokens,
    groups_problem,
    head_from,
    map_problem,
    marker_index,
    meta_json,
    parse_meta,
)
from dyntok.store.tensorfile import Array
from tests.support.samples import level_tokens, make_info, make_sample, naive_groups, sharded_store

FORMATS = ["webdataset", "zarr"]


def with_value(value: float) -> Callable[[Array], Array]:
    def change(scale: Array) -> Array:
        changed = scale.copy()
        changed[len(scale) // 2] = value
        return changed

    return change


WRONG: dict[str, Callable[[Array], Array | None]] = {
    "negative": with_value(-1e-3),
    "not a number": with_value(np.nan),
    "infinite": with_value(np.inf),
    "one too few": lambda scale: scale[:-1],
    "of another shape": lambda scale: scale[:, None],
    "in float64": lambda scale: scale.astype(np.float64),
    "missing": lambda scale: None,
}


def scaled(sample: Sample, change: Callable[[Array], Array | None]) -> Sample:
    (level,) = sample.levels
    assert level.token_scale is not None
    return replace(sample, levels=(replace(level, token_scale=change(level.token_scale)),))


@pytest.mark.parametrize("wrong", list(WRONG))
def test_scales_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    for shard_format in FORMATS:
        info = make_info(shard_format=shard_format, dtype="int8")
        sample = make_sample(info, "a", frames=3)
        bad = scaled(sample, WRONG[wrong])
        problem = groups_problem(bad.similarity, bad.levels[0], bad.levels[0].token_count, "int8")
        assert problem is not None and problem.startswith("token_scale")
        writer = open_shard_writer(StoreRoot.open(str(tmp_path)), info, 0)
        with pytest.raises(StoreError, match=r"'a' at threshold 0\.6: token_scale"):
            writer.add(bad, position=0, source="x")
        writer.add(sample, position=0, source="x")
        writer.add(scaled(make_sample(info, "zero"), with_value(0.0)), position=1, source="x")
        writer.abort()


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
def test_verify_finds_a_scale_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str, value: float
) -> None:
    """In a shard of a writer that did not look."""

    def careless(*args: object, **options: object) -> Sample:
        return scaled(make_sample(*args, **options), with_value(value))  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("tests.support.samples.make_sample", careless)
        patch.setattr(samples, "groups_problem", lambda *args: None)
        sharded_store(str(tmp_path), [1], info=make_info(shard_format=shard_format, dtype="int8"))
    (finding,) = verify(str(tmp_path)).findings
    assert "at threshold 0.6: token_scale is not one finite, non-negative" in finding.message


# what is written ---------------------------------------------------------------------------------------------


def with_level(sample: Sample, **change: Any) -> Sample:
    return replace(sample, levels=(replace(sample.levels[0], **change), *sample.levels[1:]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("layout", ["nested", "explicit"])
def test_a_good_sample_passes(dtype: str, frames: int, layout: str) -> None:
    info = make_info(dtype=dtype, layout=layout)
    sample = make_sample(info, "a", frames=frames)
    check_sample(sample, info)
    for level in sample.levels:
        for chunk, checked in zip(level.tokens, checked_chunks(sample, level), strict=True):
            assert checked is chunk
    expected = {f"{t:.2f}": len(naive_groups(sample.similarity, t)[0]) for t in info.thresholds}
    assert count_tokens(sample.similarity, info.thresholds) == expected


CHANGES: dict[str, tuple[str, Callable[[Sample], Sample]]] = {
    "another grid": ("the similarity map is", lambda s: replace(s, grid=Grid(5, 3))),
    "a frame too few": ("the similarity map is", lambda s: replace(s, similarity=s.similarity[1:])),
    "map in float64": ("the similarity map is", lambda s: replace(s, similarity=s.similarity.astype(np.float64))),
    "another width": ("has tokens", lambda s: replace(s, token_dim=9)),
    "another dtype": ("has tokens", lambda s: replace(s, dtype="float16")),
    "no level": ("has other levels", lambda s: replace(s, levels=())),
    "another level": ("has other levels", lambda s: with_level(s, threshold=0.5)),
    "a column 0 that joins": ("column 0", lambda s: replace(s, similarity=np.ones_like(s.similarity))),
    "a token too many": ("the similarity map gives", lambda s: with_level(s, token_count=s.levels[0].token_count + 1)),
    "groups of another map": ("group_size", lambda s: with_level(s, group_size=s.levels[0].group_size[::-1])),
    "wide group sizes": ("group_size", lambda s: with_level(s, group_size=s.levels[0].group_size.astype(np.int32))),
    "rows of another map": ("row_splits", lambda s: with_level(s, row_splits=s.levels[0].row_splits + 1)),
    "wide rows": ("row_splits", lambda s: with_level(s, row_splits=s.levels[0].row_splits.astype(np.int64))),
    "needless scales": ("token_scale", lambda s: with_level(s, token_scale=np.ones(s.levels[0].token_count))),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_sample_with_one_wrong_part_is_refused(change: str) -> None:
    info = make_info()
    message, spoil = CHANGES[change]
    with pytest.raises(StoreError, match=f"'a'.*{message}"):
        check_sample(spoil(make_sample(info, "a", frames=3)), info)


def test_a_sample_has_frames() -> None:
    with pytest.raises(StoreError, match="has no frames"):
        check_sample(make_sample(make_info(), "a", frames=0), make_info())


def test_a_sample_holds_so_many_tokens_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    info = make_info()
    sample = make_sample(info, "a")
    monkeypatch.setattr(samples, "MAX_TOKENS", sample.levels[0].token_count)
    check_sample(sample, info)
    monkeypatch.setattr(samples, "MAX_TOKENS", sample.levels[0].token_count - 1)
    with pytest.raises(StoreError, match="a sample holds at most"):
        check_sample(sample, info)


@pytest.mark.parametrize("col", [1, 2, 4])
def test_similarities_are_cosines(col: int) -> None:
    similarity = make_sample(make_info(), "a").similarity
    for value in (-1.0, 0.0, 1.0):
        similarity[1, 2, col] = value
        assert map_problem(similarity) is None
    for value in (np.nextafter(np.float32(1), np.float32(2)), -1.5, np.nan, np.inf, -np.inf):
        similarity[1, 2, col] = value
        assert "outside [-1, 1]" in str(map_problem(similarity))
    similarity[1, 2, col] = 0.0
    for value in (-1.0, np.nan, np.inf):
        similarity[1, 2, 0] = value
        assert "column 0" in str(map_problem(similarity))


def test_chunks_are_what_was_announced() -> None:
    sample = make_sample(make_info(dtype="float32"), "a", frames=3)
    tokens = level_tokens(sample.levels[0])
    wrong = {
        "narrow": tokens[:, 1:],
        "in float64": tokens.astype(np.float64),
        "one-dimensional": tokens[:, 0],
        "three-dimensional": tokens[:, :, None],
    }
    for chunk in wrong.values():
        with pytest.raises(StoreError, match="'a': a chunk of tokens is"):
            list(checked_chunks(sample, replace(sample.levels[0], tokens=[chunk])))
    for chunks in ([], [tokens[1:]], [tokens[:4], tokens[:4]], [tokens, tokens[:1]]):
        with pytest.raises(StoreError, match="were announced"):
            list(checked_chunks(sample, replace(sample.levels[0], tokens=chunks)))
    bad = tokens.copy()
    bad[-1, -1] = np.nan
    with pytest.raises(VideoError, match=f"tokens 4 to {len(tokens)} hold a NaN") as caught:
        list(checked_chunks(sample, replace(sample.levels[0], tokens=[tokens[:4], bad[4:]])))
    assert caught.value.code == "non_finite"
    assert all_finite(np.full((3, 4), -1, np.int8), "int8"), "whose bits would be infinite as a float's"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_bad_number_is_found_wherever_it_is(dtype: str, value: float) -> None:
    """The numbers are looked at in blocks; the last is a short one."""
    largest = {"bfloat16": 3e38, "float16": 65504, "float32": 3.4e38}[dtype]
    count = 3 * 2**16 + 10
    for place in (0, 2**16 - 1, 2**16, count - 1):
        numbers = np.full((count, 1), -largest, np.float32)
        assert all_finite(stored(numbers, dtype), dtype)
        numbers[place] = value
        assert not all_finite(stored(numbers, dtype), dtype)
    assert all_finite(np.empty((0, 8), stored(numbers, dtype).dtype), dtype)


def stored(numbers: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(dtype)


def test_row_markers_count_beyond_32_bits() -> None:
    marker = marker_index(np.array([0, 2, 5, 2**31 - 1], np.int32))
    assert marker.dtype == np.int64 and marker.tolist() == [2, 6, 2**31 + 1]


# the JSON member ---------------------------------------------------------------------------------------------


def test_the_json_says_what_the_sample_is(monkeypatch: pytest.MonkeyPatch) -> None:
    info = make_info(layout="explicit")
    sample = make_sample(info, "a")
    data = meta_json(sample)
    own = {
        "id": "a",
        "key": sample.key,
        "grid": {"rows": 3, "cols": 5},
        "token_dim": 8,
        "dtype": "bfloat16",
        "thresholds": [0.6, 0.5, 0.4],
    }
    assert json.loads(data) == {**sample.meta, **own} == parse_meta(data, "here")
    assert meta_json(replace(sample, meta=json.loads(data))) == data, "as where a store is converted"
    for name in own:
        with pytest.raises(StoreError, match=f"contradict the sample: {name}$"):
            meta_json(replace(sample, meta={**sample.meta, name: "x"}))
    monkeypatch.setattr(samples, "MAX_JSON_BYTES", len(data))
    assert meta_json(sample) == data
    monkeypatch.setattr(samples, "MAX_JSON_BYTES", len(data) - 1)
    with pytest.raises(StoreError, match="fit"):
        meta_json(sample)


GOOD_META = {
    "id": "a",
    "key": "k",
    "grid": {"rows": 2, "cols": 3},
    "token_dim": 8,
    "dtype": "int8",
    "thresholds": [1, 0.25],
    "other": 7,
}


def head_of(meta: dict[str, Any], **change: Array) -> VideoHead:
    parts = {"similarity": np.zeros((4, 2, 3), np.float32), "frame_index": np.arange(4), "frame_pts": np.arange(4) / 2}
    return head_from(meta, **{**parts, **change}, where="here")


def test_a_head_holds_what_the_json_says() -> None:
    meta = parse_meta(json.dumps(GOOD_META).encode(), "here")
    assert meta == GOOD_META
    head = head_of(meta)
    assert (head.id, head.key, head.grid, head.token_dim, head.dtype) == ("a", "k", Grid(2, 3), 8, "int8")
    assert head.thresholds == (1.0, 0.25) and {type(threshold) for threshold in head.thresholds} == {float}
    assert head.similarity.shape == (4, 2, 3) and head.frame_count == 4 and head.meta is meta
    assert head.frames.frame_index.tolist() == [0, 1, 2, 3] and head.frames.frame_pts.tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, None) for name in GOOD_META if name != "other"]
    + [(name, 3) for name in ("id", "key", "dtype", "grid", "thresholds")]
    + [("grid", value) for value in ({}, {"rows": 2}, {"cols": 3}, {"rows": 0, "cols": 3}, {"rows": 2, "cols": "3"})]
    + [("token_dim", value) for value in (True, 8.0, "8")]
    + [("thresholds", value) for value in ([], [7], ["x"], [None])],
)
def test_json_of_another_shape_is_damage(name: str, value: object) -> None:
    with pytest.raises(DamageError, match="the JSON of here is damaged"):
        parse_meta(json.dumps({**GOOD_META, name: value}).encode(), "here")
    with pytest.raises(DamageError, match="the JSON of here is damaged"):
        parse_meta(json.dumps({key: kept for key, kept in GOOD_META.items() if key != name}).encode(), "here")


@pytest.mark.parametrize(
    "change",
    [
        {"similarity": np.zeros((4, 3, 2), np.float32)},
        {"similarity": np.zeros((4, 2, 3), np.float64)},
        {"similarity": np.zeros((4, 2, 3, 1), np.float32)},
        {"similarity": np.zeros((5, 2, 3), np.float32)},
        {"frame_index": np.arange(5)},
        {"frame_pts": np.arange(5) / 2},
        {"frame_index": np.arange(5), "frame_pts": np.arange(5) / 2},
        {"frame_index": np.zeros((4, 2)), "frame_pts": np.zeros((4, 2))},
    ],
)
def test_parts_of_a_head_that_do_not_fit_are_damage(change: dict[str, Array]) -> None:
    with pytest.raises(DamageError, match="here"):
        head_of(GOOD_META, **change)


@pytest.mark.parametrize(
    ("video", "size"),
    [
        ({"height": 1, "width": 2}, (1, 2)),
        ({"height": 720, "width": 1}, (720, 1)),
        ({"height": 0, "width": 2}, None),
        ({"height": 2, "width": 0}, None),
        ({"height": 0, "width": 0}, None),
        ({"height": 2}, None),
        ({"width": 2}, None),
        ({"height": 2, "width": 2.5}, None),
        ({"height": "2", "width": 2}, None),
        ([2, 2], None),
        (None, None),
    ],
)
def test_a_frame_has_a_size_where_the_store_says_one(video: object, size: tuple[int, int] | None) -> None:
    assert head_of({**GOOD_META, "video": video}).frame_size == size
    assert head_of(GOOD_META).frame_size is None
