"""How fast a store becomes tensors, against a copy of the same bytes from a mapped file and against other formats.

The tokens are those of a 7B LLM (3584, bfloat16) of videos of 64 to 70 frames at threshold 0.6, some 42 MB a video. All
loaders hand out all videos in shuffled order; each tensor is copied into a buffer that exists already, as a collator
does it, because a view that nobody reads costs nothing. With workers the tensors come through shared memory, and this
process copies them. Files are in the page cache: what is measured is the software, not the disk. One thread a process,
medians of alternating rounds.

Loaders that are not installed are left out; `make bench-loaders` installs them all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[2]))

import dyntok
from tests.benchmarks.loader_data import write_store
from tests.benchmarks.loader_rivals import LOADERS, SHARD_SAMPLES, Loader, RawMap, installed

WORKERS = (0, 2)
Times = dict[str, tuple[int, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Some hand out arrays that must not be written to, which torch mentions.
    warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
    loaders = [loader for loader in LOADERS if installed(loader)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        buffer = write(folder, options.samples, loaders)
        results = [rounds(loaders, folder, workers, buffer, options.rounds) for workers in WORKERS]
    print(f"{options.samples} videos, medians of {options.rounds} rounds; GB/s of tokens copied\n")
    for workers, times in zip(WORKERS, results, strict=True):
        show(f"{workers} workers" if workers else "One process", times, options.samples)
    for loader in LOADERS:
        if loader not in loaders:
            print(f"{loader.name}: not installed: pip install {loader.package}")


def write(folder: Path, samples: int, loaders: Sequence[Loader]) -> Tensor:
    """Write everything; returns a buffer for the largest sample."""
    write_store(folder / "store", samples, SHARD_SAMPLES)
    store = dyntok.open(folder / "store")
    tokens = [store[video_id].at().tokens for video_id in store.ids]
    raw = RawMap.create(folder / "raw.bin", tokens)
    for number, loader in enumerate(loaders):
        print(f"writing for {loader.name}", file=sys.stderr)
        loader.write(folder / f"{number}", raw)
    return torch.zeros(max(sample.nbytes for sample in tokens), dtype=torch.uint8)


def rounds(loaders: Sequence[Loader], folder: Path, workers: int, buffer: Tensor, count: int) -> Times:
    """Bytes, and the median of seconds, of an epoch of each loader; the first round does not count."""
    datasets = {
        loader.name: DataLoader(
            loader.dataset(folder / f"{number}"),
            batch_size=None,
            shuffle=None if loader.shuffles else True,
            collate_fn=loader.tensor,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for number, loader in enumerate(loaders)
    }
    seconds: dict[str, list[float]] = {name: [] for name in datasets}
    sizes: dict[str, int] = {}
    for number in range(count + 1):
        for name, dataset in datasets.items():
            start = time.perf_counter()
            sizes[name] = touch(dataset, buffer)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: (sizes[name], statistics.median(seconds[name])) for name in datasets}


def touch(dataset: Iterable[Any], buffer: Tensor) -> int:
    """Copy every tensor into the buffer; returns the bytes."""
    total = 0
    for tokens in dataset:
        buffer[: tokens.nbytes].copy_(tokens.reshape(-1).view(torch.uint8))
        total += tokens.nbytes
    return total


def show(title: str, times: Times, samples: int) -> None:
    baseline = next(iter(times))
    size, seconds = times[baseline]
    rate = size / seconds
    print(f"{title:<36}{'GB/s':>8}{'ms/video':>10}   x {baseline}")
    for name, (size, seconds) in times.items():
        each = seconds * 1e3 / samples
        print(f"  {name:<34}{size / seconds / 1e9:8.2f}{each:10.1f}{size / seconds / rate:8.2f}")
    print()


if __name__ == "__main__":
    main()
