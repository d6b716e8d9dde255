from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.merging.naive as naive
from dyntok.errors import MergeError, NonFiniteFeatureError
from dyntok.merging import left_similarity, merge, plan_from_similarity, plan_merge

THRESHOLDS = (-1.0, 0.0, 0.4, 0.45, 0.5, 0.55, 0.6, 0.9, 1.0)


def features_of(kind: str, shape: tuple[int, int, int, int], seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=rng)
    if kind == "constant":
        return torch.ones(shape) * torch.randn(shape[-1], generator=rng)
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "some_zero":
        return base * (torch.rand(shape[:3], generator=rng) > 0.5)[..., None]
    if kind == "smooth":
        return base.cumsum(2) + 0.3 * base
    if kind == "huge":
        return base * 1e25
    if kind == "tiny":
        return base * 1e-25
    return base


shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7), st.integers(1, 5))
kinds = st.sampled_from(["random", "constant", "zero", "some_zero", "smooth", "huge", "tiny"])


@settings(max_examples=60, deadline=None)
@given(shape=shapes, kind=kinds, seed=st.integers(0, 2**16), threshold=st.sampled_from(THRESHOLDS))
def test_equals_the_naive_loops(shape: tuple[int, int, int, int], kind: str, seed: int, threshold: float) -> None:
    features = features_of(kind, shape, seed)
    tokens = torch.randn((*shape[:3], 6), generator=torch.Generator().manual_seed(seed + 1))
    similarity = left_similarity(features)
    np.testing.assert_allclose(similarity.numpy(), naive.similarity(features.numpy()), atol=1e-6)

    result = merge(tokens, features, threshold)
    expected = naive.groups(similarity.numpy(), threshold)
    assert result.group_size.tolist() == [len(g) for g in expected]
    per_row = np.zeros(shape[0] * shape[1], int)
    for group in expected:
        per_row[group[0][0] * shape[1] + group[0][1]] += 1
    assert result.row_splits.tolist() == [0, *np.cumsum(per_row).tolist()]
    np.testing.assert_allclose(
        result.tokens.numpy(), naive.merged(tokens.numpy(), similarity.numpy(), threshold), atol=1e-6
    )


@pytest.mark.parametrize("threshold", [0.6, 0.5, -0.28])
def test_similarity_exactly_at_the_threshold_does_not_merge(threshold: float) -> None:
    at = np.float32(threshold)
    above = np.nextafter(at, np.float32(2))
    similarity = torch.tensor([[[-torch.inf, float(at), float(above)]]])
    plan = plan_from_similarity(similarity, threshold)
    assert plan.group_size.tolist() == [1, 2]


def test_cosine_that_is_exact_in_floating_point_sits_on_its_threshold() -> None:
    features = torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]]])
    assert left_similarity(features)[0, 0, 1].item() == 0.5
    assert plan_merge(features, 0.5).group_size.tolist() == [1, 2]
    assert plan_merge(features, float(np.nextafter(np.float32(0.5), np.float32(0)))).group_size.tolist() == [3]


def test_threshold_one_never_merges_identical_patches() -> None:
    features = torch.randn(1, 2, 1, 7).expand(1, 2, 9, 7)
    assert plan_merge(features, 1.0).token_count == 18
    assert plan_merge(features, 0.999).token_count == 2


def test_tokens_are_cast_once_from_float32_means() -> None:
    tokens = torch.randn(2, 3, 8, 16).bfloat16()
    features = torch.randn(2, 3, 8, 4).cumsum(2)
    result = merge(tokens, features, 0.5)
    exact = plan_merge(features, 0.5).apply(tokens)
    assert result.tokens.dtype == torch.bfloat16
    assert torch.equal(result.tokens, exact.bfloat16())


@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**16), threshold=st.sampled_from(THRESHOLDS))
def test_size_weighted_sum_is_conserved(shape: tuple[int, int, int, int], seed: int, threshold: float) -> None:
    tokens = torch.randn((*shape[:3], 6), generator=torch.Generator().manual_seed(seed))
    result = merge(tokens, features_of("smooth", shape, seed), threshold)
    total = (result.tokens.double() * result.group_size[:, None]).sum(0)
    torch.testing.assert_close(total, tokens.double().sum((0, 1, 2)), atol=1e-4, rtol=1e-5)


def test_a_plan_applies_to_provenance_and_extra_dimensions() -> None:
    features = torch.randn(2, 3, 5, 4).cumsum(2)
    plan = plan_merge(features, 0.5)
    column = torch.arange(5.0).expand(2, 3, 5)
    assert plan.apply(column).shape == (plan.token_count,)
    assert plan.apply(features[..., None]).shape == (plan.token_count, 4, 1)
    assert plan.apply(torch.ones(2, 3, 5)).eq(1).all()


def test_row_markers_stand_after_each_row() -> None:
    video = merge(torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 4), 0.2)
    sequence: list[str] = []
    for row in range(6):
        sequence += ["token"] * int(video.row_splits[row + 1] - video.row_splits[row]) + ["marker"]
    assert [i for i, what in enumerate(sequence) if what == "marker"] == video.row_marker_index.tolist()


def test_a_frame_does_not_depend_on_its_neighbours() -> None:
    features, tokens = torch.randn(6, 4, 9, 8).cumsum(2), torch.randn(6, 4, 9, 16)
    whole = merge(tokens, features, 0.5)
    for t in range(6):
        alone = merge(tokens[t : t + 1], features[t : t + 1], 0.5)
        a, b = int(whole.row_splits[t * 4]), int(whole.row_splits[(t + 1) * 4])
        assert torch.equal(whole.tokens[a:b], alone.tokens)
        assert torch.equal(whole.similarity[t], alone.similarity[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_features_name_the_frame(bad: float) -> None:
    features = torch.randn(5, 2, 3, 4)
    features[3, 1, 2, 0] = bad
    with pytest.raises(NonFiniteFeatureError, match="frame 3") as caught:
        left_similarity(features)
    assert caught.value.frame == 3


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MergeError, match="share T, R and C"):
        merge(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 5, 5), 0.5)
    with pytest.raises(MergeError, match="floating"):
        left_similarity(torch.zeros(2, 3, 4, 5, dtype=torch.int32))
    with pytest.raises(MergeError, match="the plan is for"):
        plan_merge(torch.randn(2, 3, 4, 5), 0.5).apply(torch.randn(2, 3, 5, 5))
    with pytest.raises(MergeError, match="not a number"):
        plan_merge(torch.randn(2, 3, 4, 5), float("nan"))


def test_opposite_patches_have_similarity_minus_one_at_least() -> None:
    """Rounding takes a quotient beyond one, on either side."""
    patch = torch.randn(1, 200, 1, 7, generator=torch.Generator().manual_seed(0))
    same = left_similarity(torch.cat([patch, patch], 2))[..., 1]
    opposite = left_similarity(torch.cat([patch, -patch], 2))[..., 1]
    x = patch / patch.abs().amax(-1, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=-1)
    assert (torch.linalg.vecdot(x, x) / (norm * norm)).max() > 1
    assert same.max() == 1
    assert torch.equal(opposite, -same)


@pytest.mark.parametrize("shape", [(2, 3, 0, 5), (2, 3, 4, 0)])
def test_patches_without_columns_or_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MergeError, match="empty dimension"):
        left_similarity(torch.zeros(shape))
