"""Writing and reading a Zarr shard with zarr's own codec pipeline and with `zarrs`, in seconds and in bytes.

About 200 MB of bfloat16 tokens of 3584 values: a shard as dyntok writes it, then every video read as a whole, and
single frames here and there. Files are in the page cache. zarr's own pipeline as it is by default; zarrs in one thread,
as dyntok uses it, and with the threads that it takes by default. Medians of alternating rounds. Argument: rounds.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.records import Sample
from dyntok.store import (
    StoreRoot,
    commit_shard,
    open_shard_reader,
    open_shard_writer,
    plan_digest,
)
from dyntok.store.zarr import reader as zarr_reader
from dyntok.store.zarr import writer as zarr_writer
from tests.benchmarks.shard_samples import make_samples, wide_info
from tests.benchmarks.timing import report
from tests.support.samples import make_plan

PLAIN = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
ZARRS = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
ONE = {
    "threading.max_workers": 1,
    "codec_pipeline.chunk_concurrent_minimum": 1,
    "codec_pipeline.chunk_concurrent_maximum": 1,
}
PIPELINES: dict[str, dict[str, object]] = {"zarr": PLAIN, "zarrs": ZARRS, "zarrs, one thread": ZARRS | ONE}
VIDEOS, FRAMES, READS = 5, 64, 200


def as_it_is(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """In place of dyntok's choice, so that the pipelines can be compared."""
    return array


class Stopwatch:
    """Wall and CPU seconds of named steps."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name].append(time.perf_counter() - wall)
        self.cpu[name].append(time.process_time() - cpu)


def one_round(folder: Path, samples: list[Sample], watch: Stopwatch) -> dict[str, str]:
    """Write, read, read frames; returns the digests of the files."""
    info, entries = wide_info("zarr"), make_plan(0, [sample.id for sample in samples])
    root = StoreRoot.open(str(folder), create=True)
    with watch.step("write"):
        writer = open_shard_writer(root, info, 0)
        rows = [writer.add(sample, position=n, source=sample.id) for n, sample in enumerate(samples)]
        content = writer.finish()
    record = commit_shard(root, info, content, rows, plan_digest(entries))
    reader = open_shard_reader(root, info, 0, record)
    reader.head(0)
    with watch.step("read videos"):
        for number in range(len(samples)):
            reader.level(number)
    rng = np.random.default_rng(0)
    with watch.step("read frames"):
        for number in range(READS):
            reader.level(number * len(samples) // READS, frames=[int(rng.integers(FRAMES))])
    return {file.path: file.sha256 for file in record.files}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if importlib.util.find_spec("zarrs") is None:
        print("left out: pip install zarrs")
        return
    zarr_reader.for_reading = zarr_writer.for_writing = as_it_is
    samples = make_samples(VIDEOS, FRAMES)
    size = sum(chunk.nbytes for sample in samples for chunk in sample.levels[0].tokens)
    watches = {name: Stopwatch() for name in PIPELINES}
    digests: dict[str, dict[str, str]] = {}
    for number in range(rounds + 1):
        for name, settings in PIPELINES.items():
            with tempfile.TemporaryDirectory() as folder, zarr.config.set(settings):
                watch = watches[name] if number else Stopwatch()
                digests[name] = one_round(Path(folder), samples, watch)
    show(watches, size)
    for name in PIPELINES:
        other = [path for path, digest in digests[name].items() if digest != digests["zarr"][path]]
        print(f"  files that {name} writes otherwise than zarr: {len(other)} of {len(digests[name])}")


def show(watches: dict[str, Stopwatch], size: int) -> None:
    print(f"{size / 1e6:.0f} MB of tokens, {VIDEOS} videos of {FRAMES} frames; {READS} frames one by one")
    print(f"  {'':<14}{'':<20}{'wall s':>9}{'CPU s':>9}{'x zarr wall':>13}{'x zarr CPU':>12}")
    for step in ("write", "read videos", "read frames"):
        base = [statistics.median(times[step]) for times in (watches["zarr"].wall, watches["zarr"].cpu)]
        for name, watch in watches.items():
            wall, cpu = statistics.median(watch.wall[step]), statistics.median(watch.cpu[step])
            print(f"  {step:<14}{name:<20}{wall:>9.3f}{cpu:>9.3f}{wall / base[0]:>13.2f}{cpu / base[1]:>12.2f}")
            if name == "zarrs, one thread":
                report(
                    f"wall seconds with zarrs in one thread: {step}",
                    wall / base[0],
                    "-",
                    "zarr's own pipeline",
                )


if __name__ == "__main__":
    main()
