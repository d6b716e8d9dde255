"""One rule of where a group begins, and everything that counts or draws groups keeps to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dyntok
from dyntok.advice import advise
from dyntok.boundaries import boundaries, group_sizes, groups_of, lowest_edges, torch_boundaries
from dyntok.errors import MergeError
from dyntok.merging import count_tokens, plan_from_similarity, threshold_for_budget
from dyntok.pictures import GridLayout
from dyntok.pictures.drawing import BORDER, draw_groups
from dyntok.records import Grid
from dyntok.report import gather
from dyntok.report.overlays import overlays
from dyntok.stats import MapShape, MapStatistics
from dyntok.store import samples
from dyntok.store.tensorfile import Array
from tests.support.samples import make_info, naive_groups, sharded_store

# As float32, 0.6 and 0.4 are rounded up, 0.45 and 0.7 down.
THRESHOLDS = (-1.0, 0.0, 0.4, 0.45, 0.5, 0.6, 0.7, 1.0)
FORMATS = ["webdataset", "zarr"]


def map_with_ties(rng: np.random.Generator, frames: int, grid: Grid, *, column_0: float = -np.inf) -> Array:
    """Values at, just above and just below each threshold; NaN, infinities, and some between."""
    at = np.array(THRESHOLDS, np.float32)
    above, below = np.nextafter(at, np.float32(2)), np.nextafter(at, np.float32(-2))
    odd = np.array([np.nan, np.nan, -np.inf, np.inf, -0.0], np.float32)
    values = np.concatenate([at, above, below, odd, rng.uniform(-1, 1, 20).astype(np.float32)])
    similarity = rng.choice(values, (frames, grid.rows, grid.cols))
    similarity[:, :, 0] = column_0
    return similarity


def naive_begins(similarity: Array, threshold: float) -> list[bool]:
    limit = np.float32(threshold)
    return [
        col == 0 or not value > limit for frame in similarity.tolist() for row in frame for col, value in enumerate(row)
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 7)),
    threshold=st.sampled_from(THRESHOLDS),
    column_0=st.sampled_from([-np.inf, np.nan, 1.0, np.inf]),
)
def test_the_rule_is_that_of_the_loops(
    seed: int, shape: tuple[int, int, int], threshold: float, column_0: float
) -> None:
    frames, rows, cols = shape
    similarity = map_with_ties(np.random.default_rng(seed), frames, Grid(rows, cols), column_0=column_0)
    before = similarity.copy()
    begins = boundaries(similarity, threshold)
    assert begins.shape == shape and begins.ravel().tolist() == naive_begins(similarity, threshold)
    assert torch.equal(torch_boundaries(torch.from_numpy(similarity), threshold), torch.from_numpy(begins))
    assert np.array_equal(boundaries(similarity[0], threshold), begins[0])
    for number, edge in enumerate(THRESHOLDS):
        assert np.array_equal(lowest_edges(similarity, THRESHOLDS) <= number, boundaries(similarity, edge))
    sizes, splits = naive_groups(similarity, threshold)
    assert group_sizes(begins).tolist() == sizes
    found = groups_of(similarity, threshold)
    assert [array.tolist() for array in found] == [sizes, splits]
    assert [array.dtype for array in found] == [np.uint8, np.int32]
    assert np.array_equal(similarity, before, equal_nan=True)


def test_groups_are_found_in_stretches() -> None:
    similarity = map_with_ties(np.random.default_rng(0), 1300, Grid(2, 3))
    assert [array.tolist() for array in groups_of(similarity, 0.5)] == list(naive_groups(similarity, 0.5))
    assert [array.tolist() for array in groups_of(similarity[:0], 0.5)] == [[], [0]]


def test_every_count_of_groups_is_the_same() -> None:
    shape = MapShape(3, 5, THRESHOLDS)
    similarity = map_with_ties(np.random.default_rng(1), 40, Grid(3, 5))
    tensor = torch.from_numpy(similarity)
    found = MapStatistics.of(similarity, shape)
    by_name = list(samples.count_tokens(similarity, THRESHOLDS).values())
    for level, threshold in enumerate(THRESHOLDS):
        sizes, splits = naive_groups(similarity, threshold)
        plan = plan_from_similarity(tensor, threshold)
        assert plan.group_size.tolist() == sizes and plan.row_splits.tolist() == splits
        assert count_tokens(tensor, [threshold]) == [len(sizes)] == [by_name[level]]
        assert found.tokens(threshold) == len(sizes) == found.part_tokens[level].sum()
        assert found.group_size[level].tolist() == np.bincount(sizes, minlength=6)[1:].tolist()


def test_a_budget_counts_what_never_merges() -> None:
    similarity = torch.from_numpy(map_with_ties(np.random.default_rng(2), 4, Grid(3, 5)))
    (fewest,) = count_tokens(similarity, [-10.0])
    assert fewest > 12
    with pytest.raises(MergeError, match=f"make {fewest}"):
        threshold_for_budget(similarity, fewest - 1)
    for budget in range(fewest, 61):
        threshold = threshold_for_budget(similarity, budget)
        assert count_tokens(similarity, [threshold])[0] <= budget
        above = float(torch.nextafter(torch.tensor(threshold), torch.tensor(2.0)))
        assert threshold == 1.0 or count_tokens(similarity, [above])[0] > budget


def test_what_is_drawn_are_the_groups() -> None:
    similarity = map_with_ties(np.random.default_rng(3), 1, Grid(4, 6))[0]
    layout = GridLayout.over(44, 54, Grid(4, 6))
    for threshold in THRESHOLDS:
        drawn = draw_groups(np.zeros((44, 54, 3), np.uint8), similarity, threshold, layout)
        # Inside a row, each group's first patch has a border on its left.
        lines = (drawn[5::11, ::9] == BORDER).all(-1)
        assert lines.ravel().tolist() == naive_begins(similarity[None], threshold)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_store_is_read_counted_and_advised_on_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str
) -> None:
    """Also where a map holds what no writer takes."""

    def odd_map(rng: np.random.Generator, frames: int, grid: Grid, kind: str) -> Array:
        return map_with_ties(rng, frames, grid)

    monkeypatch.setattr("tests.support.samples.random_map", odd_map)
    monkeypatch.setattr(samples, "map_problem", lambda similarity: None)
    info = make_info(shard_format=shard_format)
    sharded_store(str(tmp_path), [3], info=info, frames=12)
    store = dyntok.open(tmp_path)
    found = gather(str(tmp_path))
    for name, total in found.to_json()["tokens"].items():
        assert total == sum(len(store[i].at(threshold=float(name))) for i in store.ids)
        assert total == found.maps.tokens(float(name))
    for row in advise(store, 100).rows:
        for name, length in row.length.items():
            lengths = [len(store[i].select(float(name), frames=row.frames, markers="row")) for i in store.ids]
            assert length == np.median(lengths)
    for overlay in overlays(found):
        tokens = [len(store[overlay.example.id].at(threshold=threshold)) for threshold in info.thresholds]
        assert [overlay.curve[found.maps.shape.edges.index(t)] for t in info.thresholds] == tokens
