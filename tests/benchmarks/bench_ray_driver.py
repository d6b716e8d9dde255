"""What a shard costs the driver of a Ray run: 10,000 shards of one video, all real but a model that answers at once.

Every shard is a plan row, a call to an actor, a decoded frame, a tar, a record and its logs; all but the row and the
call happen in the actors. So the driver's own CPU time and memory are told apart from the wall time, which is the
actors'. Peak memory after a tenth and at the end: it must not grow with the shards. Arguments: shards, actors.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.config import EncodeConfig
from dyntok.run import RunObserver, encode
from dyntok.run.executors.ray import crew
from dyntok.run.executors.ray.actor import EncodeActor
from tests.support.clips import write_video

HERE = Path(__file__).parents[2]


class FixedEncoder:
    """Answers with what `inner` said of the first batch."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._answer = inner, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, images: Tensor) -> Any:
        if self._answer is None:
            self._answer = self._inner.encode(images)
        return self._answer


class FixedActor(EncodeActor):
    """An actor with such a model."""

    def load(self) -> Any:
        return FixedEncoder(super().load())


class Watching(RunObserver):
    """Notes time, CPU time and peak memory of this process as the first shard comes, and after a tenth of them."""

    def __init__(self, shards: int) -> None:
        self._tenth, self._count = max(2, shards // 10), 0
        self.begun, self.early_mb = (0.0, 0.0), 0

    def shard(self, shard: int, bytes_written: int) -> None:
        self._count += 1
        if self._count == 1:
            self.begun = time.perf_counter(), time.process_time()
        if self._count == self._tenth:
            self.early_mb = peak_mb()


def peak_mb() -> int:
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def main() -> None:
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    actors = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    # Actors import this file by its name.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "pipelines"), str(HERE), str(Path(__file__).parent)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_video(folder / "a.mp4", images=[np.full((64, 96, 3), 90, np.uint8)] * 4)
        rows = (json.dumps({"path": "a.mp4", "id": f"{number:06d}"}) for number in range(shards))
        (folder / "videos.jsonl").write_text("\n".join(rows))
        crew.ACTOR = FixedActor
        config = EncodeConfig.create(
            model="demo", frames=1, batch_size=1, device="cpu", executor="ray", actors=actors,
            decode_workers=1, cpus_per_actor=0.5, shard_size=1,
        )  # fmt: skip
        watching = Watching(shards)
        report = encode([str(folder / "videos.jsonl")], str(folder / "store"), config, observer=watching)
        wall, cpu = (now - then for now, then in zip(clocks(), watching.begun, strict=True))
    assert report.done == report.shards == shards
    print(
        f"{shards:,} shards, {actors} actors, from the first shard to the manifest: "
        f"{wall / shards * 1e3:.2f} ms wall and {cpu / shards * 1e3:.2f} ms of the driver's CPU a shard, "
        f"{watching.early_mb} MB after a tenth, {peak_mb()} MB at the end"
    )


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    from bench_ray_driver import main as run

    run()
