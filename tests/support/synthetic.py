"""Large stores without a video: plan, records and logs as a run would leave them, made from text in seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.plan_schema import SCHEMA
from dyntok.records import Grid
from dyntok.run.tell.summaries import summarise
from dyntok.stats import MapStatistics
from dyntok.store import DatasetInfo, StoreRoot, map_shape, sample_key
from dyntok.store.names import record_path, shard_data_path, shard_name, statistics_path
from dyntok.store.statistics import statistics_bytes

THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
TOKENS = {"0.40": 1254, "0.45": 1600, "0.50": 1881, "0.55": 2300, "0.60": 2785}
FAILS_AT = 7
DATA = b"x" * 512


def synthetic_store(
    out: Path,
    *,
    shards: int,
    videos: int,
    written: int | None = None,
    logs: bool = True,
    job_logs: int = 1,
    statistics: bool = False,
) -> StoreRoot:
    """A store of `shards` shards with `videos` each, of which the first `written` are committed.

    The video at position `FAILS_AT` of each shard failed. `logs` writes what `job_logs` runs would have logged.
    `statistics` writes those of each shard, of one random map for each of its videos.
    """
    root = StoreRoot.open(str(out), create=True)
    written = shards if written is None else written
    info = DatasetInfo(
        config={"model": "demo", "frames": 32, "executor": "local"},
        config_hash="0" * 64,
        model={"name": "demo", "fingerprint": "f" * 64},
        grid=Grid(14, 14),
        feature_dim=64,
        token_dim=128,
        dtype="bfloat16",
        space="llm",
        shard_format="webdataset",
        layout="nested",
        thresholds=THRESHOLDS,
    )
    info.save(root)
    write_plan(out / "plan.parquet", shards, videos)
    (out / "shards").mkdir()
    (out / "logs").mkdir()
    lines: list[list[bytes]] = [[] for _ in range(job_logs)]
    of_videos = _statistics(info, videos) if statistics else None
    for shard in range(written):
        counted = None if of_videos is None else statistics_bytes(of_videos, shard)
        if counted is not None:
            (out / statistics_path(shard)).write_bytes(counted)
        data = record_bytes(shard, videos, counted)
        (out / record_path(shard)).write_bytes(data)
        (out / shard_data_path(shard, "webdataset")).write_bytes(DATA)
        if logs:
            lines[shard % job_logs].append(summarise(data, shard, "").to_line())
    for number, run in enumerate(lines if logs else []):
        name = f"run-20260101T000000000000Z-job-{number:05d}-of-{job_logs:05d}-host-{number}"
        (out / "logs" / f"{name}.shards.jsonl").write_bytes(b"".join(run))
    return root


def video_id(shard: int, position: int) -> str:
    return f"clips/{shard:06d}/a-clip-with-a-name-{position:05d}.mp4"


def fingerprint(shard: int, position: int) -> str:
    return f"ht1:123456:{shard:016x}{position:016x}"


def _plan_digest(shard: int, videos: int) -> str:
    sha = hashlib.sha256()
    for position in range(videos):
        name = video_id(shard, position)
        print_ = fingerprint(shard, position)
        sha.update(f'[{shard},{position},"{name}","{name}",123456,"{print_}","{{}}",1]\n'.encode())
    return sha.hexdigest()


def _statistics(info: DatasetInfo, videos: int) -> MapStatistics:
    """Of the videos of a shard that are done."""
    rng = np.random.default_rng(0)
    similarity = rng.uniform(0, 1, (32, 14, 14)).astype(np.float32)
    similarity[:, :, 0] = -np.inf
    one = MapStatistics.of(similarity, map_shape(info))
    return sum([one] * (videos - (videos > FAILS_AT)), MapStatistics.empty(one.shape))


def record_bytes(shard: int, videos: int, statistics: bytes | None = None) -> bytes:
    """The completion record of a shard."""
    named = {f"shards/{shard_name(shard)}.tar": DATA}
    if statistics is not None:
        named[statistics_path(shard)] = statistics
    files = json.dumps(
        [
            {"bytes": len(data), "path": path, "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in named.items()
        ],
        separators=(",", ":"),
    )
    rows = ",".join(_row(shard, position) for position in range(videos))
    rest = (
        f'"files":{files},"format_version":1,"plan_digest":"{_plan_digest(shard, videos)}",'
        f'"shard":{shard},"videos":[{rows}]}}'
    )
    digest = hashlib.sha256(b"{" + rest.encode()).hexdigest()
    return f'{{"digest":"{digest}",{rest}\n'.encode()


def _row(shard: int, position: int) -> str:
    name = video_id(shard, position)
    if position == FAILS_AT:
        row, done = -1, False
    else:
        row, done = position - (position > FAILS_AT), True
    tokens = json.dumps(TOKENS, separators=(",", ":")) if done else "{}"
    return (
        f'{{"attempt":1,"decoder":"{"pyav" if done else ""}",'
        f'"error":"{"" if done else "3 of 4 frames came"}","error_class":"{"" if done else "truncated"}",'
        f'"frames":{32 if done else 0},"id":"{name}","key":"{sample_key(name)}","nbytes":{713000 if done else 0},'
        f'"offset":{position * 720000 if done else 0},"patches":{6272 if done else 0},"position":{position},'
        f'"row":{row},"seconds":{12.48 if done else 0.0},"source":"{name}","status":"{"done" if done else "failed"}",'
        f'"tokens":{tokens}}}'
    )


def write_plan(path: Path, shards: int, videos: int, group_shards: int = 160) -> None:
    """A plan of so many shards with so many videos each."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for first in range(0, shards, group_shards):
            places = [
                (shard, position)
                for shard in range(first, min(first + group_shards, shards))
                for position in range(videos)
            ]
            names = [video_id(*place) for place in places]
            count = len(places)
            columns = [
                [shard for shard, _ in places],
                [position for _, position in places],
                names,
                names,
                [f"/data/{name}" for name in names],
                [None] * count,
                [None] * count,
                [123456] * count,
                [fingerprint(*place) for place in places],
                ["{}"] * count,
                [1] * count,
            ]
            arrays = [pa.array(values, kind.type) for values, kind in zip(columns, SCHEMA, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
