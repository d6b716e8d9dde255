"""Peak memory of a run: eight decode processes, videos of 160 frames, corpora of growing size.

Sums of proportional set sizes over the process tree, so shared pages count once. `demo model` is the command as a
user runs it; `7B LLM` has tokens of 3584 values from a simulated device, so that a video is 120 MB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.testing import SimulatedEncoder
from tests.benchmarks.pipeline_runs import copies, demo_clips, prepare
from tests.benchmarks.timing import report
from tests.support.memory import peak_tree_bytes
from tests.support.runs import command, environment

FRAMES, WORKERS = 160, 8
SIZES = (8, 32, 64)
MIB = 2**20


def child(corpus: str, out: str) -> None:
    """One run with a simulated device, in a process of its own."""
    torch.set_num_threads(1)
    job = prepare(
        Path(corpus), Path(out), token_dims=(1152, 3584), frames=FRAMES, decode_workers=WORKERS
    )  # fmt: skip
    job.encode(SimulatedEncoder(0.05))


def main() -> None:
    print(f"peak memory in MiB, {WORKERS} decode processes, {FRAMES} frames a video")
    print(f"{'videos':<12}" + "".join(f"{size:>8}" for size in SIZES))
    for title in ("demo model", "7B LLM"):
        peaks = [peak(title, size) for size in SIZES]
        print(f"{title:<12}" + "".join(f"{value / MIB:>8.0f}" for value in peaks), flush=True)
        name = f"peak memory with {SIZES[-1]} videos, {title}"
        report(name, peaks[-1] / peaks[0], "<= 1.2", f"{SIZES[0]} videos: {peaks[0] / MIB:.0f} MiB")


def peak(title: str, size: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        corpus, out = copies(demo_clips(), Path(name, "in"), size), Path(name, "out")
        if title == "demo model":
            flags = ["--model", "demo", "--frames", str(FRAMES), "--decode-workers", str(WORKERS)]
            arguments = command("encode", corpus, "--out", out, *flags)
        else:
            arguments = [sys.executable, __file__, str(corpus), str(out)]
        found, result = peak_tree_bytes(arguments, {**environment(), "OMP_NUM_THREADS": "1"})
        assert result.returncode == 0, result.stdout.decode()
    return found


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(*sys.argv[1:])
    else:
        main()
