"""Samples of a real shape for the benchmarks of shard writers and readers: smooth tokens, groups from a random map."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dyntok.boundaries import groups_of
from dyntok.records import Grid, Level, Sample, SampledFrames
from dyntok.store import DatasetInfo, sample_key

GRID, TOKEN_DIM, THRESHOLD = Grid(14, 14), 3584, 0.6
KEPT = 0.44
CHUNK_FRAMES = 16


def wide_info(shard_format: str, dtype: str = "bfloat16") -> DatasetInfo:
    """A store of one level, as a 7B LLM has it."""
    return DatasetInfo(
        config={}, config_hash="", model={}, grid=GRID, feature_dim=1152, token_dim=TOKEN_DIM, dtype=dtype,
        space="llm", shard_format=shard_format, layout="nested", thresholds=(THRESHOLD,),
    )  # fmt: skip


def make_samples(videos: int, frames: int) -> list[Sample]:
    """bfloat16 samples of `frames` frames, about 0.62 MB of tokens a frame, in chunks of a batch as a run has them.

    A token is a mixture of 64 fixed directions and noise, so that it compresses about as tokens of the demo model do.
    """
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((64, TOKEN_DIM), np.float32) * rng.gamma(2.0, 0.5, TOKEN_DIM).astype(np.float32)
    return [_sample(rng, directions, f"video-{number}", frames) for number in range(videos)]


def _sample(rng: np.random.Generator, directions: np.ndarray, name: str, frames: int) -> Sample:  # type: ignore[type-arg]
    similarity = np.full((frames, GRID.rows, GRID.cols), -np.inf, np.float32)
    inner = rng.random((frames, GRID.rows, GRID.cols - 1), np.float32)
    starts = (KEPT * GRID.cols - 1) / (GRID.cols - 1)
    similarity[:, :, 1:] = THRESHOLD + (inner - starts) * 0.4
    group_size, row_splits = groups_of(similarity, THRESHOLD)
    weights = rng.standard_normal((len(group_size), len(directions)), np.float32) / 8
    values = weights @ directions + rng.standard_normal((len(group_size), TOKEN_DIM), np.float32) * 0.1
    tokens = (values.view(np.uint32) >> 16).astype(np.uint16)
    edges = row_splits[:: GRID.rows * CHUNK_FRAMES].tolist()
    if edges[-1] != len(tokens):
        edges.append(len(tokens))
    chunks = [tokens[begin:end] for begin, end in pairwise(edges)]
    level = Level(THRESHOLD, len(tokens), chunks, group_size, row_splits)
    times = SampledFrames(np.arange(frames, dtype=np.int64), np.arange(frames) / 8)
    return Sample(sample_key(name), name, GRID, TOKEN_DIM, "bfloat16", similarity, times, (level,), {})
