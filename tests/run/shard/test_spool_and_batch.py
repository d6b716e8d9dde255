from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dyntok.merging import blocks, merge
from dyntok.run.shard.batch import BatchMerger, to_stored_dtype
from dyntok.run.shard.spool import SpoolBudget, TokenSpool


@pytest.mark.parametrize("each_bytes", [10**9, 1000, 0])
def test_a_spool_gives_back_what_it_took(tmp_path: Path, each_bytes: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**16, (n, 7), dtype=np.uint16) for n in (3, 50, 1, 200)]
    budget = SpoolBudget(total_bytes=2000, each_bytes=each_bytes)
    spool = TokenSpool(tmp_path, budget)
    for part in parts:
        spool.append(part)
    assert spool.rows == 254
    np.testing.assert_array_equal(np.concatenate(list(spool)), np.concatenate(parts))
    assert budget.take(2000), "the budget was not given back"
    assert not list(tmp_path.iterdir())


def test_spools_share_one_budget(tmp_path: Path) -> None:
    budget = SpoolBudget(total_bytes=1000, each_bytes=1000)
    first, second = TokenSpool(tmp_path, budget), TokenSpool(tmp_path, budget)
    first.append(np.zeros((100, 4), np.int16))
    second.append(np.ones((100, 4), np.int16))
    first.close()
    assert budget.take(1000), "the second spool should have gone to disk"
    assert sum(chunk.sum() for chunk in second) == 400


def test_a_spool_copies_unless_told_to_keep(tmp_path: Path) -> None:
    spool = TokenSpool(tmp_path, SpoolBudget())
    parts = [np.ones((3, 4), np.int16), np.ones((2, 4), np.int16)]
    spool.append(parts[0])
    spool.append(parts[1], keep=True)
    shared = [np.shares_memory(chunk, part) for chunk, part in zip(spool, parts, strict=True)]
    assert shared == [False, True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_a_batch_in_pieces_is_the_batch_at_once(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, tokens = torch.randn(4, 3, 5, 6).cumsum(2), torch.randn(4, 3, 5, 8)
    tokens[2, 1, 1, 0] = torch.inf
    monkeypatch.setattr(blocks, "_CACHE_BYTES", 10**6)
    whole = BatchMerger((0.6,), dtype)(features, tokens)
    monkeypatch.setattr(blocks, "_CACHE_BYTES", 500)
    pieces = BatchMerger((0.6,), dtype)(features, tokens)
    assert whole.bad_frames == pieces.bad_frames == {2}
    for first, second in zip(whole.levels, pieces.levels, strict=True):
        assert first.tokens.dtype == second.tokens.dtype
        assert first.tokens.tobytes() == second.tokens.tobytes()
        assert (first.scale is None) == (second.scale is None) == (dtype != "int8")
        if first.scale is not None and second.scale is not None:
            assert first.scale.tobytes() == second.scale.tobytes()


def test_levels_follow_the_operator() -> None:
    features, tokens = torch.randn(3, 3, 5, 6).cumsum(2), torch.randn(3, 3, 5, 8)
    batch = BatchMerger((0.6, 0.4), "float32")(features, tokens)
    for level, threshold in zip(batch.levels, (0.6, 0.4), strict=True):
        expected = merge(tokens, features, threshold)
        torch.testing.assert_close(torch.from_numpy(level.tokens), expected.tokens, atol=1e-6, rtol=0)
        assert level.frame_splits.tolist() == expected.row_splits[::3].tolist()


@pytest.mark.parametrize("where", ["features", "tokens"])
def test_a_frame_that_is_not_finite_spoils_no_other(where: str) -> None:
    features, tokens = torch.randn(4, 3, 5, 6), torch.randn(4, 3, 5, 8)
    clean = BatchMerger((0.6,), "float32")(features, tokens)
    broken = {"features": features.clone(), "tokens": tokens.clone()}
    broken[where][2, 1, 1, 0] = torch.nan
    batch = BatchMerger((0.6,), "float32")(broken["features"], broken["tokens"])
    assert batch.bad_frames == {2}
    end = clean.levels[0].frame_splits[2]
    np.testing.assert_array_equal(batch.levels[0].tokens[:end], clean.levels[0].tokens[:end])


def test_float16_overflow_is_seen() -> None:
    features, tokens = torch.randn(2, 1, 3, 4), torch.ones(2, 1, 3, 8)
    tokens[1] *= 1e5
    assert BatchMerger((0.6,), "float16")(features, tokens).bad_frames == {1}
    assert BatchMerger((0.6,), "bfloat16")(features, tokens).bad_frames == frozenset()


def test_int8_is_within_half_a_step_of_its_scale() -> None:
    means = torch.randn(50, 16) * torch.logspace(-6, 6, 50)[:, None]
    means[7] = 0
    stored, scale = to_stored_dtype(means, means.abs().amax(1), "int8")
    error = (stored * scale[:, None] - means).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert scale[7] == 1
    assert stored[7].max() == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8"])
def test_tokens_are_cast_once_and_bfloat16_travels_as_bits(dtype: str) -> None:
    features, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 7)
    (level,) = BatchMerger((0.3,), dtype)(features, tokens).levels
    means = merge(tokens, features, 0.3).tokens
    stored, *scale = to_stored_dtype(means, means.abs().amax(1), dtype)
    assert level.tokens.dtype == np.dtype("uint16" if dtype == "bfloat16" else dtype)
    got = torch.from_numpy(level.tokens)
    assert torch.equal(got.view(torch.bfloat16) if dtype == "bfloat16" else got, stored)
    assert (level.scale is None) == (dtype != "int8")
    if scale:
        np.testing.assert_array_equal(level.scale, scale[0].numpy())
