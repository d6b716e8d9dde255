"""Samples for store tests: a random similarity map, and groups derived from it by the plainest loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.plan_schema import SCHEMA
from dyntok.records import Grid, Level, PlanEntry, Sample, SampledFrames, SourceRef, VideoRow
from dyntok.store import (
    CompletionRecord,
    DatasetInfo,
    ShardReader,
    StoreRoot,
    VideoHead,
    build_index,
    commit_shard,
    completed_shards,
    failed_row,
    open_shard_writer,
    plan_digest,
    sample_key,
    save_tensors,
    write_manifest,
)
from dyntok.store.completion import load_records
from dyntok.store.samples import StoredLevel
from dyntok.store.tensorfile import Array

THRESHOLDS = (0.4, 0.5, 0.6)


def make_info(
    *,
    shard_format: str = "webdataset",
    layout: str = "nested",
    dtype: str = "bfloat16",
    grid: Grid | None = None,
    token_dim: int = 8,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> DatasetInfo:
    return DatasetInfo(
        config={"model": "demo", "format": shard_format, "frames": 4},
        config_hash="0" * 64,
        model={"name": "demo", "fingerprint": "f" * 16},
        grid=grid or Grid(3, 5),
        feature_dim=6,
        token_dim=token_dim,
        dtype=dtype,
        space="llm",
        shard_format=shard_format,
        layout=layout,
        thresholds=thresholds,
        software={"dyntok": "0.1.0"},
    )


def naive_groups(similarity: Array, threshold: float) -> tuple[list[int], list[int]]:
    """Group sizes and row splits, patch by patch as the definition says."""
    limit = np.float32(threshold)
    sizes: list[int] = []
    splits = [0]
    for frame in similarity:
        for row in frame:
            for col, value in enumerate(row):
                if col > 0 and value > limit:
                    sizes[-1] += 1
                else:
                    sizes.append(1)
            splits.append(len(sizes))
    return sizes, splits


def random_map(rng: np.random.Generator, frames: int, grid: Grid, kind: str = "mixed") -> Array:
    low, high = {"mixed": (-1.0, 1.0), "all_merge": (0.9, 1.0), "none_merge": (-1.0, -0.5)}[kind]
    similarity = rng.uniform(low, high, (frames, grid.rows, grid.cols)).astype(np.float32)
    similarity[:, :, 0] = -np.inf
    return similarity


def random_tokens(rng: np.random.Generator, count: int, dim: int, dtype: str) -> Array:
    values = rng.standard_normal((count, dim)).astype(np.float32)
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    if dtype == "int8":
        return rng.integers(-127, 128, (count, dim), np.int8)
    return values.astype(dtype)


def make_sample(
    info: DatasetInfo, video_id: str, *, frames: int = 2, seed: int = 0, kind: str = "mixed", chunk: int = 7
) -> Sample:
    """A sample whose tokens come in chunks of `chunk`;"""
    rng = np.random.default_rng(seed)
    similarity = random_map(rng, frames, info.grid, kind)
    levels = []
    for threshold in info.level_thresholds:
        sizes, splits = naive_groups(similarity, threshold)
        tokens = random_tokens(rng, len(sizes), info.token_dim, info.dtype)
        scale = rng.uniform(0, 1, len(sizes)).astype(np.float32) if info.dtype == "int8" else None
        levels.append(
            Level(
                threshold=threshold,
                token_count=len(sizes),
                tokens=[tokens[i : i + chunk] for i in range(0, len(tokens), chunk)],
                group_size=np.array(sizes, np.uint8),
                row_splits=np.array(splits, np.int32),
                token_scale=scale,
            )
        )
    return Sample(
        key=sample_key(video_id),
        id=video_id,
        grid=info.grid,
        token_dim=info.token_dim,
        dtype=info.dtype,
        similarity=similarity,
        frames=SampledFrames(np.arange(frames, dtype=np.int64) * 3, np.arange(frames, dtype=np.float64) / 8 + seed),
        levels=tuple(levels),
        meta={
            "source": f"in/{video_id}",
            "model": "f" * 16,
            "sampling": {"frames": frames},
            "extra": {"é": 1},
        },
    )


def level_tokens(level: Level) -> Array:
    return np.concatenate(list(level.tokens))


def make_plan(shard: int, ids: list[str], attempt: int = 1) -> list[PlanEntry]:
    return [
        PlanEntry(shard, position, video_id, f"in/{video_id}", SourceRef(f"/in/{video_id}"), 10, "ab", "{}", attempt)
        for position, video_id in enumerate(ids)
    ]


def write_shard(
    root: StoreRoot,
    info: DatasetInfo,
    entries: list[PlanEntry],
    *,
    failed: tuple[str, ...] = (),
    seeds: dict[str, int] | None = None,
    statistics: bool = True,
    **sample_options: Any,
) -> tuple[CompletionRecord, dict[str, Sample]]:
    """Write and commit one shard; ids in `failed` get a failed row. What a video holds follows from its seed."""
    writer = open_shard_writer(root, info, entries[0].shard, statistics=statistics)
    rows: list[VideoRow] = []
    samples: dict[str, Sample] = {}
    for entry in entries:
        if entry.id in failed:
            rows.append(failed_row(entry, sample_key(entry.id), "truncated", "3 of 4 frames came"))
            continue
        seed = entry.shard * 1000 + entry.position if seeds is None else seeds[entry.id]
        sample = make_sample(info, entry.id, seed=seed, **({"frames": 1 + seed % 4} | sample_options))
        samples[entry.id] = sample
        rows.append(
            writer.add(
                sample,
                position=entry.position,
                source=entry.source,
                attempt=entry.attempt,
                seconds=1.5,
                decoder="pyav",
            )
        )
    record = commit_shard(root, info, writer.finish(), rows, plan_digest(entries))
    return record, samples


@dataclass(frozen=True)
class ReadVideo:
    """Everything that is stored of a video, or of some of its frames."""

    head: VideoHead
    levels: tuple[StoredLevel, ...]


def read_video(reader: ShardReader, row: int, frames: Any = None) -> ReadVideo:
    head = reader.head(row, frames)
    return ReadVideo(head, tuple(reader.level(row, level, frames) for level in range(len(head.thresholds))))


def iter_records(root: StoreRoot) -> Iterator[CompletionRecord]:
    """Every valid completion record, by shard."""
    return (record for _, record in load_records(root, completed_shards(root)) if record is not None)


def file_bytes(root: StoreRoot) -> Iterator[tuple[str, bytes]]:
    for path in root.list():
        yield path, root.read_bytes(path)


def write_plan(root: StoreRoot, entries: list[PlanEntry]) -> None:
    rows = [
        {name: getattr(entry.ref if name in ("path", "offset", "length") else entry, name) for name in SCHEMA.names}
        for entry in entries
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink)
    root.write_atomic("plan.parquet", sink.getvalue().to_pybytes())


def complete_store(url: str, info: DatasetInfo) -> tuple[StoreRoot, dict[str, Sample]]:
    """A finished store: two shards, a failed video that succeeded when it was retried, one that did not."""
    root = StoreRoot.open(url, create=True)
    info.save(root)
    shards = [
        make_plan(0, ["a.mp4", "b/ü.mp4", "bad.mp4"]),
        make_plan(1, ["d.mp4", "late.mp4"]),
        make_plan(2, ["late.mp4"], attempt=2),
    ]
    entries = [entry for shard in shards for entry in shard]
    write_plan(root, entries)
    samples: dict[str, Sample] = {}
    for shard in shards:
        failed = ("bad.mp4", "late.mp4") if shard[0].attempt == 1 else ()
        samples |= write_shard(root, info, shard, failed=failed)[1]
    root.write_atomic("row_marker.safetensors", save_tensors({"row_marker": ("F32", np.ones(8, np.float32))}))
    build_index(root, iter(entries))
    write_manifest(root)
    return root, samples


def sharded_store(
    url: str,
    counts: list[int],
    *,
    failed: tuple[str, ...] = (),
    info: DatasetInfo | None = None,
    **options: Any,
) -> tuple[StoreRoot, dict[str, Sample]]:
    """A finished store of `len(counts)` shards; video i of shard s is `s<s>/v<i>.mp4`. Options as `make_sample`."""
    info = info or make_info()
    root = StoreRoot.open(url, create=True)
    info.save(root)
    shards = [make_plan(s, [f"s{s}/v{i}.mp4" for i in range(count)]) for s, count in enumerate(counts) if count]
    entries = [entry for shard in shards for entry in shard]
    write_plan(root, entries)
    samples: dict[str, Sample] = {}
    for shard in shards:
        samples |= write_shard(root, info, shard, failed=failed, **options)[1]
    marker = np.linspace(-1, 1, info.token_dim, dtype=np.float32)
    root.write_atomic("row_marker.safetensors", save_tensors({"row_marker": ("F32", marker)}))
    build_index(root, iter(entries))
    write_manifest(root)
    return root, samples
