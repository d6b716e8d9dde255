"""Working block by block gives the bits of working on everything at once, which is written out here."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.errors import NonFiniteFeatureError
from dyntok.merging import blocks, left_similarity, merge, plan_from_similarity
from dyntok.merging.plan import MergePlan
from tests.merging.test_operator import features_of, kinds

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
shapes = st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 3, 16, 33, 67]))


def similarity_at_once(features: torch.Tensor) -> torch.Tensor:
    tiny = torch.finfo(torch.float32).tiny
    x = features.float()
    x = x / torch.linalg.vector_norm(x, ord=torch.inf, dim=-1, keepdim=True).clamp(min=tiny)
    norm = torch.linalg.vector_norm(x, dim=-1)
    dot = torch.linalg.vecdot(x[:, :, :-1], x[:, :, 1:])
    product = norm[:, :, :-1] * norm[:, :, 1:]
    cosine = torch.where(product > 0, dot / product.clamp(min=tiny), 0.0).clamp(-1, 1)
    return torch.cat([torch.full((*x.shape[:2], 1), -torch.inf), cosine], 2)


def means_at_once(plan: MergePlan, values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten(0, 2).float()
    rows = torch.arange(len(flat))
    sums = torch.nn.functional.embedding_bag(rows, flat, plan.group_start, mode="sum")
    return sums / plan.group_size[:, None]


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes,
    kind=kinds,
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
    threshold=st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
    cache_bytes=st.sampled_from([1, 100, 700, 5000, 10**6]),
)
def test_blocks_do_not_change_a_bit(
    shape: tuple[int, int, int, int],
    kind: str,
    dtype: torch.dtype,
    seed: int,
    threshold: float,
    cache_bytes: int,
) -> None:
    features = features_of(kind, shape, seed).to(dtype)
    if not torch.isfinite(features).all():
        features = features_of("smooth", shape, seed).to(dtype)
    tokens = torch.randn((*shape[:3], 5), generator=torch.Generator().manual_seed(seed)).to(dtype)
    tokens[tokens.abs() < 0.2] = -0.0
    similarity = similarity_at_once(features)
    plan = plan_from_similarity(similarity, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_CACHE_BYTES", cache_bytes)
        found = merge(tokens, features, threshold)
        pieces = list(plan.means(tokens))
    assert same_bits(found.similarity, similarity)
    means = means_at_once(plan, tokens)
    assert same_bits(found.tokens, means.to(dtype))
    assert same_bits(torch.cat([piece.clone() for piece in pieces]), means)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    same_kind = a.dtype == b.dtype and a.shape == b.shape
    return same_kind and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of five patches with four float32 values."""
    monkeypatch.setattr(blocks, "_CACHE_BYTES", 2 * 5 * 4 * 4)


@pytest.mark.usefixtures("small_blocks")
def test_inputs_are_left_as_they_are() -> None:
    features, tokens = torch.randn(3, 3, 5, 4).cumsum(2), torch.randn(3, 3, 5, 4)
    before = features.clone(), tokens.clone()
    merge(tokens, features, 0.5)
    assert torch.equal(features, before[0])
    assert torch.equal(tokens, before[1])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("row", [0, 4, 8])
def test_the_frame_with_the_bad_feature_is_named_in_any_block(row: int) -> None:
    features = torch.randn(3, 3, 5, 4)
    features[row // 3, row % 3, 2, 1] = torch.nan
    with pytest.raises(NonFiniteFeatureError) as caught:
        left_similarity(features)
    assert caught.value.frame == row // 3


@pytest.mark.usefixtures("small_blocks")
def test_gradients_reach_tokens_and_features() -> None:
    features = torch.randn(3, 3, 5, 4).cumsum(2).requires_grad_()
    tokens = torch.randn(3, 3, 5, 4, requires_grad=True)
    result = merge(tokens, features, 0.5)
    with torch.no_grad():
        assert same_bits(result.tokens, merge(tokens, features, 0.5).tokens)
    (result.tokens.sum() + result.similarity[:, :, 1:].sum()).backward()  # type: ignore[no-untyped-call]
    share = (1 / result.group_size).repeat_interleave(result.group_size).reshape(3, 3, 5, 1)
    assert tokens.grad is not None
    torch.testing.assert_close(tokens.grad, share.expand(3, 3, 5, 4))
    copy = features.detach().requires_grad_()
    torch.nn.functional.cosine_similarity(copy[:, :, 1:], copy[:, :, :-1], dim=-1).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(features.grad, copy.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("order", [(0, 3, 1, 2), (1, 0, 2, 3), (2, 1, 0, 3)])
def test_memory_in_another_order_gives_the_same_result(order: tuple[int, ...]) -> None:
    features, tokens = torch.randn(3, 4, 5, 70), torch.randn(3, 4, 5, 6)
    back = [order.index(axis) for axis in range(4)]
    other = [values.permute(order).contiguous().permute(back) for values in (tokens, features)]
    strided, dense = merge(other[0], other[1], 0.1), merge(tokens, features, 0.1)
    # torch sums strided values in another order.
    assert same_bits(strided.similarity, similarity_at_once(other[1]))
    assert torch.equal(strided.tokens, dense.tokens)


def test_so_many_rows_are_worked_on_as_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.zeros(3, 4, 5, 6)
    row_bytes = 5 * 6 * 4
    assert blocks.rows_at_once(values) == 12
    for cache_bytes, rows in (
        (1, 1),
        (row_bytes, 1),
        (3 * row_bytes, 3),
        (5 * row_bytes - 1, 4),
        (10**6, 12),
    ):
        monkeypatch.setattr(blocks, "_CACHE_BYTES", cache_bytes)
        # They are worked on as float32, whatever they are.
        assert blocks.rows_at_once(values) == blocks.rows_at_once(values.half()) == rows
    monkeypatch.setattr(blocks, "_CACHE_BYTES", row_bytes)
    assert blocks.rows_at_once(values.transpose(1, 2).contiguous().transpose(1, 2)) == 12
    assert blocks.rows_at_once(values.to("meta")) == 12
    assert blocks.rows_at_once(values[:0]) == 1
    values.requires_grad_()
    assert blocks.rows_at_once(values) == 12
    with torch.no_grad():
        assert blocks.rows_at_once(values) == 1


def test_what_fits_is_not_copied() -> None:
    values = torch.randn(6, 2)
    assert [block.data_ptr() for block in blocks.float_blocks(values, 6)] == [values.data_ptr()]
    assert [len(block) for block in blocks.float_blocks(values, 5)] == [5, 1]
    assert torch.equal(next(blocks.float_blocks(values.half(), 6)), values.half().float())


def test_the_largest_magnitude_is_torchs_norm_of_order_infinity() -> None:
    values = torch.randn(3, 4, 5)
    values[0, 1, 2] = torch.nan
    found = blocks.largest_magnitude(values)
    torch.testing.assert_close(found, torch.linalg.vector_norm(values, ord=torch.inf, dim=-1), equal_nan=True)
    assert blocks.largest_magnitude(values, keepdim=True).shape == (3, 4, 1)
