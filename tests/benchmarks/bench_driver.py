"""What a shard costs a run in one process: 10,000 shards of one video, one frame each, with a decoder and a
model that do nothing.

What is left is the plan, the threads, merging of one tiny frame, the tar, the commit with its syncs, the record, the
logs, and at the end index and manifest. Once in memory (/dev/shm, where there is one), once on the disk of the
temporary folder. Peak memory is told after a tenth and at the end: it must not grow with the shards. Argument: shards.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.config import EncodeConfig
from dyntok.records import SampledFrames, VideoInfo
from dyntok.run.array import ArrayJob
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.monitor import RunMonitor
from dyntok.run.tell.observer import Observers, RunObserver, StageClock
from dyntok.run.tell.runlog import new_run_name
from dyntok.run.watch.outcome import open_plan
from dyntok.run.watch.survey import committed
from dyntok.store import StoreRoot, build_index, write_manifest
from dyntok.testing import SimulatedEncoder
from dyntok.video import DecodeTask, Finished, Frames, Opened
from tests.support.synthetic import synthetic_store

SIZE, FEATURES, TOKENS = 8, 4, 8


class NoDecoding:
    """Stands for the decode pool: one black frame for each video, at once."""

    def __init__(self) -> None:
        self._events: deque[object] = deque()
        self.in_flight = 0
        self._frames = SampledFrames(np.zeros(1, np.int64), np.zeros(1, np.float64))
        self._info = VideoInfo(SIZE, SIZE, 0, 1, 1.0, 1.0, "none", "none", "none", "none")
        self._image = np.zeros((1, SIZE, SIZE, 3), np.uint8)

    def can_submit(self) -> bool:
        return self.in_flight < 4

    def submit(self, task: DecodeTask) -> None:
        self.in_flight += 1
        self._events += [
            Opened(task, self._frames, self._info),
            Frames(task, 0, self._image),
            Finished(task, {}),
        ]

    def next_event(self, timeout_s: float) -> object:
        event = self._events.popleft()
        self.in_flight -= isinstance(event, Finished)
        return event


class Watching(RunObserver):
    """Notes the peak memory after a tenth of the shards."""

    def __init__(self, shards: int) -> None:
        self._at, self._count = max(1, shards // 10), 0
        self.early_mb = 0

    def shard(self, shard: int, bytes_written: int) -> None:
        self._count += 1
        if self._count == self._at:
            self.early_mb = peak_mb()


def peak_mb() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+)", status)
    return int(found[1]) // 1024 if found else 0


def run(out: Path, shards: int) -> None:
    root = synthetic_store(out, shards=shards, videos=1, written=0, logs=False)
    from dyntok.store import DatasetInfo

    info = replace(DatasetInfo.load(root), feature_dim=FEATURES, token_dim=TOKENS)
    info.save(root)
    clock, watching, job = StageClock(), Watching(shards), ArrayJob(0, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    with (
        open_plan(root) as plan,
        RunMonitor(root, clock, name=new_run_name(job), job=job) as monitor,
    ):
        monitor.planned(shards, 0, shards, 0)
        works = (ShardWork(number, tuple(plan.shard(number))) for number in plan.shard_numbers)
        encode_shards(shard_job(root, info, Observers(monitor, watching), clock), works)
        report("shards", shards, wall, cpu, f"{watching.early_mb} MB after a tenth, {peak_mb()} MB at the end")
        stages = ", ".join(
            f"{stage} {seconds / shards * 1e3:.2f}" for stage, seconds in sorted(clock.seconds().items())
        )
        print(f"    ms a shard by stage: {stages}")
        wall, cpu = time.perf_counter(), time.process_time()
        assert len(committed(root, plan, plan.shard_numbers)) == shards
        report("looking what is there, as at the start of a run", shards, wall, cpu)
        wall, cpu = time.perf_counter(), time.process_time()
        build_index(root, plan.entries())
        write_manifest(root)
        report("index and manifest", shards, wall, cpu, f"{peak_mb()} MB")


def shard_job(root: StoreRoot, info: object, observer: RunObserver, clock: StageClock) -> ShardJob:
    encoder: Any = SimulatedEncoder(0.0, feature_dim=FEATURES, token_dim=TOKENS)
    encoder.spec = SimpleNamespace(height=SIZE, width=SIZE, fingerprint="")
    config = EncodeConfig(model="demo", frames=1, batch_size=1, decode_workers=4)
    return ShardJob(root, info, config, encoder, NoDecoding(), observer, clock)  # type: ignore[arg-type]


def report(title: str, shards: int, wall: float, cpu: float, more: str = "") -> None:
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = f"{wall / shards * 1e3:6.2f} ms wall {cpu / shards * 1e3:6.2f} ms CPU a shard"
    print(f"  {title:<48}{wall:8.1f} s wall {cpu:8.1f} s CPU; {each}; {more}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    memory = Path("/dev/shm")
    for title, place in (("in memory", memory if memory.is_dir() else None), ("on disk", None)):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            print(f"{title}: {shards:,} shards of one video")
            run(Path(folder) / "store", shards)


if __name__ == "__main__":
    main()
