from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.merging.naive as naive
from dyntok.errors import MergeError
from dyntok.merging import MergePlan, coarsen, nesting, plan_from_similarity

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
FINE, COARSE = 0.6, 0.4


def similarity_map(seed: int, frames: int = 6, rows: int = 5, cols: int = 14) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    similarity = torch.rand((frames, rows, cols), generator=rng) * 1.2 - 0.2
    similarity[:, :, 0] = -torch.inf
    return similarity


def plans(seed: int, low: float = COARSE) -> tuple[MergePlan, MergePlan]:
    similarity = similarity_map(seed)
    return plan_from_similarity(similarity, FINE), plan_from_similarity(similarity, low)


def stored_tokens(plan: MergePlan, dim: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn((plan.token_count, dim), generator=rng).to(dtype)


def bits(tokens: torch.Tensor) -> np.ndarray:
    return tokens.contiguous().view(torch.uint8).numpy()


def starts(fine: MergePlan, coarse: MergePlan) -> torch.Tensor:
    return torch.searchsorted(fine.group_start, coarse.group_start)


def members(fine: MergePlan, coarse: MergePlan) -> torch.Tensor:
    """Fine groups in each coarse one."""
    return torch.diff(starts(fine, coarse), append=torch.tensor([fine.token_count]))


@pytest.fixture(params=[1, 2**11, 2**21])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Blocks of a row of the grid, of a few rows, and of everything."""
    monkeypatch.setattr(nesting, "_CPU_BLOCK_BYTES", request.param)
    yield request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 7, 16])
@pytest.mark.parametrize("low", [-1.0, 0.1, 0.4, 0.59])
def test_means_are_those_of_float64_cast_once(block_bytes: int, dtype: torch.dtype, dim: int, low: float) -> None:
    fine, coarse = plans(3, low)
    # Small integers: sums are exact in float32, so that only the division and the cast round.
    tokens = stored_tokens(fine, dim, torch.float32).mul_(20).round_().to(dtype)
    patches = torch.repeat_interleave(tokens.double(), fine.group_size, 0).view(6, 5, 14, dim).numpy()
    exact = naive.merged(patches, similarity_map(3).numpy(), low)
    merged = coarsen(tokens, fine, coarse, dtype=dtype)
    assert merged.dtype == dtype
    assert torch.equal(merged, torch.from_numpy(exact).float().to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_lone_token_comes_out_bit_for_bit(block_bytes: int, dtype: torch.dtype) -> None:
    fine, coarse = plans(4)
    tokens = stored_tokens(fine, 8, dtype)
    tokens[::3] = 0.0 if dtype == torch.float32 else -0.0
    tokens[1::5] = 3e-8
    alone = members(fine, coarse) == 1
    assert 20 < alone.sum() < len(alone) - 20
    merged = coarsen(tokens, fine, coarse, dtype=dtype)
    first = tokens[starts(fine, coarse)]
    assert np.array_equal(bits(merged[alone]), bits(first[alone]))
    assert not torch.equal(merged[~alone], first[~alone])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("result", DTYPES)
def test_the_result_is_cast_from_float32_once(block_bytes: int, dtype: torch.dtype, result: torch.dtype) -> None:
    fine, coarse = plans(5)
    tokens = stored_tokens(fine, 24, dtype)
    in_float32 = coarsen(tokens, fine, coarse)
    assert in_float32.dtype == torch.float32
    assert torch.equal(coarsen(tokens, fine, coarse, dtype=result), in_float32.to(result))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), low=st.floats(-0.3, 0.6), rows=st.integers(14, 200))
def test_blocks_leave_no_trace(seed: int, low: float, rows: int) -> None:
    fine, coarse = plans(seed, low)
    tokens = stored_tokens(fine, 4, torch.float32, seed)
    whole = coarsen(tokens, fine, coarse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_CPU_BLOCK_BYTES", rows * 16)
        assert torch.equal(coarsen(tokens, fine, coarse), whole)


def test_threads_leave_no_trace() -> None:
    fine, coarse = plans(6)
    tokens = stored_tokens(fine, 512, torch.bfloat16)
    one = coarsen(tokens, fine, coarse)
    torch.set_num_threads(3)
    try:
        assert torch.equal(coarsen(tokens, fine, coarse), one)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("before", [0, 1, 8])
def test_a_result_goes_where_it_is_asked_to(before: int) -> None:
    fine, coarse = plans(7)
    tokens = stored_tokens(fine, 8, torch.bfloat16)
    expected = coarsen(tokens, fine, coarse, dtype=torch.bfloat16)
    buffer = torch.full((before + expected.numel() + 5,), 9.0, dtype=torch.bfloat16)
    out = buffer[before : before + expected.numel()].view(expected.shape)
    assert coarsen(tokens, fine, coarse, out=out) is out
    assert torch.equal(out, expected)
    assert (buffer[:before] == 9).all()
    assert (buffer[before + expected.numel() :] == 9).all()
    unchanged = torch.empty_like(tokens)
    assert coarsen(tokens, fine, fine, out=unchanged) is unchanged
    assert torch.equal(unchanged, tokens)


def test_a_result_that_does_not_fit_is_refused() -> None:
    fine, coarse = plans(7)
    tokens = stored_tokens(fine, 8, torch.bfloat16)
    with pytest.raises(MergeError, match="out must be contiguous"):
        coarsen(tokens, fine, coarse, out=torch.empty(coarse.token_count + 1, 8))
    with pytest.raises(MergeError, match="out must be contiguous"):
        coarsen(tokens, fine, coarse, out=torch.empty(8, coarse.token_count).T)


@pytest.mark.parametrize("low", [-1.0, 0.4, 0.6])
def test_int8_tokens_are_scaled(block_bytes: int, low: float) -> None:
    fine, coarse = plans(8, low)
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(-127, 128, (fine.token_count, 8), generator=rng, dtype=torch.int8)
    scale = torch.rand(fine.token_count, generator=rng)
    scaled = tokens.float() * scale[:, None]
    merged = coarsen(tokens, fine, coarse, scale=scale)
    torch.testing.assert_close(merged, coarsen(scaled, fine, coarse), atol=1e-5, rtol=1e-6)
    alone = members(fine, coarse) == 1
    assert torch.equal(merged[alone], scaled[starts(fine, coarse)][alone])
    assert torch.equal(coarsen(tokens, fine, coarse, scale=scale, dtype=torch.bfloat16), merged.bfloat16())


def test_gradients_reach_the_stored_tokens() -> None:
    fine, coarse = plans(9)
    tokens = stored_tokens(fine, 3, torch.float32).requires_grad_()
    merged = coarsen(tokens, fine, coarse)
    assert torch.equal(merged, coarsen(tokens.detach(), fine, coarse))
    merged.sum().backward()
    assert tokens.grad is not None
    weight = fine.group_size / coarse.group_size.repeat_interleave(members(fine, coarse))
    torch.testing.assert_close(tokens.grad, weight[:, None].expand(-1, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_gives_the_same_means(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(nesting, "_BLOCK_BYTES", 2**11)
    similarity = similarity_map(10)
    on_cpu = [plan_from_similarity(similarity, threshold) for threshold in (FINE, COARSE)]
    on_gpu = [plan_from_similarity(similarity.cuda(), threshold) for threshold in (FINE, COARSE)]
    tokens = stored_tokens(on_cpu[0], 16, dtype)
    expected = coarsen(tokens, *on_cpu, dtype=dtype)
    merged = coarsen(tokens.cuda(), *on_gpu, dtype=dtype).cpu()
    torch.testing.assert_close(merged, expected)
    alone = members(*on_cpu) == 1
    assert np.array_equal(bits(merged[alone]), bits(expected[alone]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scale_multiplies_tokens_of_any_dtype(dtype: torch.dtype) -> None:
    fine, coarse = plans(11)
    tokens = stored_tokens(fine, 8, torch.float32).mul_(20).round_()
    scale = 0.5 ** torch.randint(0, 4, (fine.token_count,), generator=torch.Generator().manual_seed(0))
    merged = coarsen(tokens.to(dtype), fine, coarse, scale=scale)
    torch.testing.assert_close(merged, coarsen(tokens * scale[:, None], fine, coarse), atol=1e-5, rtol=1e-6)


def test_with_gradients_a_result_has_the_dtype_and_the_place_that_are_asked_for() -> None:
    fine, coarse = plans(12)
    tokens = stored_tokens(fine, 4, torch.float32).requires_grad_()
    expected = coarsen(tokens.detach(), fine, coarse)
    assert torch.equal(coarsen(tokens, fine, coarse, dtype=torch.bfloat16), expected.bfloat16())
    out = torch.empty_like(expected)
    assert coarsen(tokens, fine, coarse, out=out) is out
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("dim", "before"), [(17, 0), (16, 17), (8, 1), (8, 17)])
def test_rows_and_places_of_odd_sizes_are_written_alike(block_bytes: int, dim: int, before: int) -> None:
    fine, coarse = plans(13)
    tokens = stored_tokens(fine, dim, torch.bfloat16)
    buffer = torch.empty(before + coarse.token_count * dim, dtype=torch.bfloat16)
    out = buffer[before:].view(coarse.token_count, dim)
    coarsen(tokens, fine, coarse, out=out)
    assert torch.equal(out, coarsen(tokens, fine, coarse).bfloat16())
