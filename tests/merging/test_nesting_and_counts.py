from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.errors import MergeError
from dyntok.merging import (
    coarsen,
    count_tokens,
    left_similarity,
    marker_count,
    plan_from_similarity,
    threshold_for_budget,
)

THRESHOLDS = (-1.0, -0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.95, 1.0)
DTYPE_TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def video(seed: int, frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn((frames, 5, 14, 6), generator=rng).cumsum(2)
    tokens = torch.rand((frames, 5, 14, 8), generator=rng) * 2 - 1
    return left_similarity(features), tokens


@pytest.mark.parametrize("dtype", list(DTYPE_TOLERANCE))
@pytest.mark.parametrize(("low", "high"), list(itertools.combinations_with_replacement(THRESHOLDS, 2)))
def test_nested_equals_direct(dtype: torch.dtype, low: float, high: float) -> None:
    similarity, tokens = video(1)
    fine, coarse = plan_from_similarity(similarity, high), plan_from_similarity(similarity, low)
    stored = fine.apply(tokens).to(dtype)
    nested = coarsen(stored, fine, coarse)
    # Values lie in [-1, 1], so an absolute bound is the dtype's rounding.
    torch.testing.assert_close(nested, coarse.apply(tokens), atol=DTYPE_TOLERANCE[dtype], rtol=0)


def test_splitting_tokens_again_is_refused() -> None:
    similarity, tokens = video(2)
    fine, coarse = plan_from_similarity(similarity, 0.8), plan_from_similarity(similarity, 0.3)
    assert fine.token_count > coarse.token_count
    with pytest.raises(MergeError, match="never split"):
        coarsen(coarse.apply(tokens), coarse, fine)
    with pytest.raises(MergeError, match="the tensor has"):
        coarsen(tokens.flatten(0, 2), fine, coarse)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), low=st.floats(-1, 1), high=st.floats(-1, 1))
def test_boundaries_are_nested_and_counts_agree(seed: int, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    similarity, _ = video(seed)
    fine, coarse = plan_from_similarity(similarity, high), plan_from_similarity(similarity, low)
    assert set(coarse.group_start.tolist()) <= set(fine.group_start.tolist())
    assert count_tokens(similarity, [low, high]) == [coarse.token_count, fine.token_count]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**16), extra=st.integers(0, 220), ties=st.booleans())
def test_budget_takes_the_largest_threshold_that_fits(seed: int, extra: int, ties: bool) -> None:
    similarity, _ = video(seed)
    if ties:
        similarity = (similarity * 4).round() / 4
    budget = similarity.shape[0] * similarity.shape[1] + extra
    threshold = threshold_for_budget(similarity, budget)
    (count,) = count_tokens(similarity, [threshold])
    assert count <= budget
    if threshold < 1.0:
        just_above = float(torch.nextafter(torch.tensor(threshold), torch.tensor(2.0)))
        assert count_tokens(similarity, [just_above])[0] > budget
    else:
        assert count == similarity.numel()


def test_budget_counts_markers_and_stops_at_the_stored_threshold() -> None:
    similarity, _ = video(7)
    markers = marker_count("row", 3, 5)
    budget = 60
    threshold = threshold_for_budget(similarity, budget, markers)
    assert count_tokens(similarity, [threshold])[0] + markers <= budget
    assert threshold_for_budget(similarity, 10**6, markers, at_most=0.6) == 0.6
    assert marker_count("frame", 3, 5) == 3
    assert marker_count("video", 3, 5) == 1
    assert marker_count("none", 3, 5) == 0


def test_budget_below_one_token_a_row_says_the_smallest() -> None:
    similarity, _ = video(7)
    with pytest.raises(MergeError, match="make 30"):
        threshold_for_budget(similarity, 29, marker_count("row", 3, 5))
    assert threshold_for_budget(similarity, 30, marker_count("row", 3, 5)) < 1


def test_a_budget_for_every_patch_needs_no_merging() -> None:
    similarity, _ = video(7)
    patches = similarity.numel()
    assert threshold_for_budget(similarity, patches) == 1.0
    assert threshold_for_budget(similarity, patches + 1) == 1.0
    assert threshold_for_budget(similarity, patches - 1) < 1.0
    assert threshold_for_budget(similarity, patches - 1, markers=1) < 1.0
