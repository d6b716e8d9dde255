"""How busy a device is kept, and what a whole run takes against its slowest stage alone.

*Busy share*: first a device that takes no time tells what the host supplies, decoding, merging and writing included;
then one that takes as long as a device does at 80 % of that supply tells how much of the time it had work, from its
first batch to its last. Tokens are those of SigLIP-so400m and a 7B LLM, merged on the host. Two decode processes; the
corpora are four real clips over and over, 64 frames each, and 200 clips of a second, 8 frames each.

*Whole run*: the demo model, one thread, one decode process, twenty clips, against the model alone on frames in memory
and against decoding alone, whichever takes longer; each measured before and after the run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.testing import SimulatedEncoder
from dyntok.vision import load_encoder
from tests.benchmarks.pipeline_runs import Timing, copies, demo_clips, prepare
from tests.benchmarks.timing import report
from tests.support.clips import write_video

DIMS = (1152, 3584)
BATCH = 16
ROUNDS, PAIRS = 3, 5
USED = 0.8


def supply_and_share(corpus: Path, folder: Path, frames: int) -> tuple[float, float]:
    """Frames per second that the host supplies, and the busy share of a device at 80 % of that."""

    def run(name: str, encoder: SimulatedEncoder) -> Timing:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            job = prepare(
                corpus, Path(out, "store"), token_dims=DIMS, frames=frames, decode_workers=2, batch_size=BATCH
            )
            timing = job.encode(encoder)
        print(f"  {name}: {timing.frames} frames, {timing.rate:.0f} a second", flush=True)
        return timing

    supply = run("a device that takes no time", SimulatedEncoder(0.0)).rate
    encoder = SimulatedEncoder(BATCH / (USED * supply))
    run(f"a device of {USED * supply:.0f} frames a second", encoder)
    print(f"  busy {encoder.busy_share:.1%} of its time", flush=True)
    return supply, encoder.busy_share


def busy(title: str, corpus: Path, folder: Path, frames: int, target: str) -> None:
    print(title)
    shares = [supply_and_share(corpus, folder, frames)[1] for _ in range(ROUNDS)]
    report(f"busy share of a device, {title}", statistics.median(shares), target, "100 % of its time")


def whole_run(corpus: Path, folder: Path) -> None:
    encoder = load_encoder("demo")
    spec = encoder.spec
    # As many as in a run: the same few frames again and again would lie in the cache.
    shape = (BATCH, spec.height, spec.width, 3)
    batches = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(24)]

    def end_to_end() -> Timing:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            job = prepare(corpus, Path(out, "store"), frames=64, decode_workers=1, batch_size=BATCH)
            return job.encode(encoder)

    def model_alone() -> Timing:
        began = time.perf_counter()
        for images in batches:
            encoder.encode(images)
        return Timing(len(batches) * BATCH, time.perf_counter() - began, {})

    def decoding_alone() -> Timing:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            return prepare(corpus, Path(out, "store"), frames=64, decode_workers=1).decode()

    alone: dict[str, Callable[[], Timing]] = {"model": model_alone, "decoding": decoding_alone}
    whole: list[float] = []
    stages: dict[str, list[float]] = {name: [] for name in alone}
    for number in range(PAIRS + 1):
        # Before and after, so that a machine that slows down or speeds up meanwhile hits both.
        before = {name: stage().rate for name, stage in alone.items()}
        rate = end_to_end().rate
        for name, stage in alone.items():
            if number:
                stages[name].append((before[name] + stage().rate) / 2)
        if number:
            whole.append(rate)
    slowest = min(stages, key=lambda name: statistics.median(stages[name]))
    shares = [rate / stage for rate, stage in zip(whole, stages[slowest], strict=True)]
    print("frames a second, demo model on one core, medians of rounds")
    for name, values in {"whole run": whole, **{f"{n} alone": v for n, v in stages.items()}}.items():
        print(f"  {name:<16}{statistics.median(values):8.1f}")
    print("  whole run against", slowest, "alone, by round:", *(f"{share:.2f}" for share in shares))
    report("speed of a whole run, demo model", statistics.median(shares), ">= 0.95", f"{slowest} alone")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = copies(demo_clips(), folder / "clips", 24)
        short = folder / "short"
        short.mkdir()
        first = write_video(short / "0000.mp4")
        for number in range(1, 200):
            (short / f"{number:04}.mp4").write_bytes(first.read_bytes())
        busy("four clips over and over", clips, folder, 64, ">= 0.95")
        busy("200 short clips", short, folder, 8, ">= 0.90")
        whole_run(copies(demo_clips(), folder / "twenty", 20), folder)


if __name__ == "__main__":
    main()
