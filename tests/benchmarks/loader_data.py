"""A store of random tokens with the statistics of a real one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from dyntok.boundaries import groups_of
from dyntok.records import Grid, Level, PlanEntry, Sample, SampledFrames, SourceRef, VideoRow
from dyntok.store import (
    DatasetInfo,
    StoreRoot,
    build_index,
    commit_shard,
    open_shard_writer,
    plan_digest,
    sample_key,
    write_manifest,
)
from dyntok.store.tensorfile import Array
from tests.support.samples import make_info, write_plan

GRID = Grid(14, 14)
TOKEN_DIM = 3584
# Quantiles of the similarities inside a row that leave 44 %, 30 % and 20 % of the tokens at 0.6, 0.5 and 0.4, as DynTok
# reports it.
FRACTIONS = (0.0, 0.139, 0.246, 0.401, 1.0)
SIMILARITIES = (-0.2, 0.4, 0.5, 0.6, 1.0)
# Samples are cut from one random tensor; making each anew takes longer than all that is measured.
POOL_TOKENS = 12_000


def write_store(folder: Path, samples: int, per_shard: int, frames: tuple[int, int] = (64, 70)) -> None:
    """A complete store of bfloat16 tokens; videos are `frames` long, from .. to."""
    info = dataclasses.replace(make_info(grid=GRID, token_dim=TOKEN_DIM), feature_dim=1152)
    root = StoreRoot.open(str(folder), create=True)
    info.save(root)
    entries = [_entry(*divmod(number, per_shard)) for number in range(samples)]
    write_plan(root, entries)
    rng = np.random.default_rng(0)
    pool = torch.randn((POOL_TOKENS, TOKEN_DIM), generator=torch.Generator().manual_seed(0))
    bits = pool.bfloat16().view(torch.uint16).numpy()
    for first in range(0, samples, per_shard):
        shard = entries[first : first + per_shard]
        writer = open_shard_writer(root, info, shard[0].shard)
        rows: list[VideoRow] = []
        for entry in shard:
            sample = _sample(info, entry.id, int(rng.integers(frames[0], frames[1] + 1)), bits, rng)
            rows.append(writer.add(sample, position=entry.position, source=""))
        commit_shard(root, info, writer.finish(), rows, plan_digest(shard))
    build_index(root, iter(entries))
    write_manifest(root)


def _entry(shard: int, position: int) -> PlanEntry:
    video_id = f"{shard:03}-{position:03}.mp4"
    return PlanEntry(shard, position, video_id, "", SourceRef(""), 1, "-")


def _sample(info: DatasetInfo, video_id: str, frames: int, pool: Array, rng: np.random.Generator) -> Sample:
    uniform = rng.uniform(size=(frames, GRID.rows, GRID.cols))
    similarity = np.interp(uniform, FRACTIONS, SIMILARITIES).astype(np.float32)
    similarity[:, :, 0] = -np.inf
    group_size, row_splits = groups_of(similarity, info.stored_threshold)
    count = len(group_size)
    begin = int(rng.integers(0, POOL_TOKENS - count))
    level = Level(info.stored_threshold, count, [pool[begin : begin + count]], group_size, row_splits)
    return Sample(
        key=sample_key(video_id),
        id=video_id,
        grid=GRID,
        token_dim=TOKEN_DIM,
        dtype=info.dtype,
        similarity=similarity,
        frames=SampledFrames(np.arange(frames), np.arange(frames, dtype=np.float64)),
        levels=(level,),
    )
