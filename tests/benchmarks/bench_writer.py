"""The shard writer, commit included, against a raw sequential write with fsync of the same bytes to the same disk.

About 300 MB: 8 videos of 64 frames, bfloat16 tokens of 3584 values, that come in chunks of 16 frames, as in a run. The
raw write takes the tar's bytes from memory in pieces of 8 MiB. Wall seconds, medians of alternating rounds, and the
median of each round's ratio to the raw write just before; CPU seconds beside. Arguments: rounds, folder.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.records import Sample
from dyntok.store import StoreRoot, commit_shard, open_shard_writer, plan_digest
from tests.benchmarks.shard_samples import make_samples, wide_info
from tests.benchmarks.timing import report
from tests.support.samples import make_plan

VIDEOS, FRAMES = 8, 64
PIECE_BYTES = 2**23


def write_raw(folder: Path, data: memoryview) -> None:
    handle = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for first in range(0, len(data), PIECE_BYTES):
        piece = data[first : first + PIECE_BYTES]
        while piece:
            piece = piece[os.write(handle, piece) :]
    os.fsync(handle)
    os.close(handle)


def write_shard(folder: Path, samples: list[Sample], shard_format: str) -> Path:
    """Returns the path of the shard."""
    info, entries = wide_info(shard_format), make_plan(0, [sample.id for sample in samples])
    root = StoreRoot.open(str(folder / "store"), create=True)
    writer = open_shard_writer(root, info, 0)
    rows = [writer.add(sample, position=n, source=sample.id) for n, sample in enumerate(samples)]
    record = commit_shard(root, info, writer.finish(), rows, plan_digest(entries))
    return folder / "store" / record.files[0].path


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    place = sys.argv[2] if len(sys.argv) > 2 else None
    samples = make_samples(VIDEOS, FRAMES)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        data = memoryview(write_shard(Path(folder), samples, "webdataset").read_bytes())
    functions: dict[str, Callable[[Path], object]] = {
        "raw write": lambda folder: write_raw(folder, data),
        "tar": lambda folder: write_shard(folder, samples, "webdataset"),
        "Zarr": lambda folder: write_shard(folder, samples, "zarr"),
    }
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            with tempfile.TemporaryDirectory(dir=place) as folder:
                os.sync()
                start, start_cpu = time.perf_counter(), time.process_time()
                function(Path(folder))
                if number:
                    wall[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - start_cpu)
    print(f"{len(data) / 1e6:.0f} MB, medians of {rounds} rounds")
    print(f"  {'':<12}{'wall s':>9}{'CPU s':>9}{'MB/s':>8}{'speed, x raw':>14}")
    for name in functions:
        seconds = statistics.median(wall[name])
        speed = statistics.median(raw / own for raw, own in zip(wall["raw write"], wall[name], strict=True))
        used = statistics.median(cpu[name])
        print(f"  {name:<12}{seconds:>9.3f}{used:>9.3f}{len(data) / seconds / 1e6:>8.0f}{speed:>14.2f}")
        if name != "raw write":
            report(f"speed of the shard writer, {name}", speed, ">= 0.8", "raw sequential write with fsync")


if __name__ == "__main__":
    main()
