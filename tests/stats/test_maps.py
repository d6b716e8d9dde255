"""Counts over similarity maps: exact on their grid, and the same however they were gathered."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.merging import count_tokens, plan_from_similarity
from dyntok.records import Grid
from dyntok.stats import MapShape, MapStatistics
from dyntok.stats.maps import PARTS
from tests.support.samples import naive_groups, random_map

SHAPE = MapShape(3, 5, (0.4, 0.4321, 0.6))


def maps(seed: int, count: int) -> list[np.ndarray]:
    """Of various lengths, with many values exactly on an edge of the grid, as float32 rounds it."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        similarity = random_map(rng, int(rng.integers(1, 45)), Grid(SHAPE.rows, SHAPE.cols))
        on_edge = rng.random(similarity.shape) < 0.5
        on_edge[:, :, 0] = False
        edges = np.array(SHAPE.edges, np.float32)
        similarity[on_edge] = rng.choice(edges, int(on_edge.sum()))
        made.append(similarity)
    return made


def gathered(some: list[np.ndarray]) -> MapStatistics:
    total = MapStatistics.empty(SHAPE)
    for similarity in some:
        total = total + MapStatistics.of(similarity, SHAPE)
    return total


def test_edges_are_the_decimals_of_the_grid_and_the_configured_thresholds() -> None:
    assert len(SHAPE.edges) == 402
    assert {-1.0, -0.005, 0.0, 0.4, 0.4321, 0.555, 1.0} <= set(SHAPE.edges)
    assert all(float(f"{edge:.4f}") == edge for edge in SHAPE.edges)


def test_the_curve_is_the_count_of_tokens_at_every_edge() -> None:
    some = maps(1, 6)
    everything = torch.from_numpy(np.concatenate(some))
    assert gathered(some).curve() == count_tokens(everything, SHAPE.edges)
    for edge, count in zip(SHAPE.edges[::17], gathered(some).curve()[::17], strict=True):
        assert count == plan_from_similarity(everything, edge).token_count
    assert gathered(some).tokens(0.4321) == count_tokens(everything, [0.4321])[0]


def test_groups_and_frames_are_counted_as_the_definition_says() -> None:
    some = maps(2, 5)
    found = gathered(some)
    for level, threshold in enumerate(SHAPE.thresholds):
        sizes = np.zeros(SHAPE.cols, int)
        frames = np.zeros(SHAPE.frame_bins, int)
        parts = np.zeros(PARTS, int)
        for similarity in some:
            for number, frame in enumerate(similarity):
                of_frame, _ = naive_groups(frame[None], threshold)
                for size in of_frame:
                    sizes[size - 1] += 1
                frames[len(of_frame) - SHAPE.rows] += 1
                parts[int(number / len(similarity) * PARTS + 1e-9)] += len(of_frame)
        assert found.group_size[level].tolist() == sizes.tolist()
        assert found.frame_tokens[level].tolist() == frames.tolist()
        assert found.part_tokens[level].tolist() == parts.tolist()
    assert found.part_frames.sum() == found.frames == sum(map(len, some))


def test_long_videos_are_counted_in_stretches() -> None:
    similarity = random_map(np.random.default_rng(3), 1300, Grid(3, 5))
    whole = MapStatistics.of(similarity, SHAPE)
    assert whole.curve() == count_tokens(torch.from_numpy(similarity), SHAPE.edges)
    assert whole.part_frames.tolist() == [65] * PARTS
    assert whole.part_tokens.sum(1).tolist() == [whole.tokens(threshold) for threshold in SHAPE.thresholds]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_split_in_any_order_gives_the_same_bytes(data: st.DataObject) -> None:
    some = maps(4, 12)
    order = data.draw(st.permutations(range(len(some))))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(some)))) | {0, len(some)})
    parts = [gathered([some[i] for i in order[a:b]]) for a, b in itertools.pairwise(cuts)]
    total = MapStatistics.empty(SHAPE)
    for number in data.draw(st.permutations(range(len(parts)))):
        again = MapStatistics.from_json(json.loads(json.dumps(parts[number].to_json())), SHAPE)
        total = again + total
    assert json.dumps(total.to_json()) == json.dumps(gathered(some).to_json())


def test_huge_grids_have_wider_bins() -> None:
    shape = MapShape(64, 64, (0.5,))
    assert shape.frame_bin == 4 and shape.frame_bins <= 1024
    similarity = random_map(np.random.default_rng(5), 3, Grid(64, 64), "none_merge")
    assert MapStatistics.of(similarity, shape).frame_tokens[0, -1] == 3


def test_a_grid_of_one_column_has_nothing_to_merge() -> None:
    shape = MapShape(4, 1, (0.5,))
    found = MapStatistics.of(np.full((2, 4, 1), -np.inf, np.float32), shape)
    assert set(found.curve()) == {8} and found.group_size.tolist() == [[8]]


def test_what_does_not_fit_is_refused() -> None:
    found = MapStatistics.of(maps(6, 1)[0], SHAPE)
    with pytest.raises(ValueError, match="do not add up"):
        found + MapStatistics.empty(MapShape(3, 5, (0.4,)))
    with pytest.raises(ValueError, match="grid"):
        MapStatistics.of(np.zeros((1, 2, 5), np.float32), SHAPE)
    content = found.to_json()
    for change in (
        {"grid": {"rows": 4, "cols": 5}},
        {"videos": True},
        {"frames": 1.5},
        {"similarity": [0] * 401},
        {"similarity": [-1] * 402},
        {"group_size": 3},
        {"edges": content["edges"][1:]},
        {"more": 1},
        {"part_frames": [0.5] * PARTS},
    ):
        with pytest.raises((ValueError, TypeError, KeyError)):
            MapStatistics.from_json({**content, **change}, SHAPE)
