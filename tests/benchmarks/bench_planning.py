"""From a listing to a frozen plan: where the seconds go, for so many videos (argument; default 100,000).

The files are hard links to a few files, so names and inodes are looked up as in a real corpus, and contents come from
the page cache: `tiny` ones have 4 KiB, `large` ones 10 MB without blocks, of which head and tail (128 KiB) are hashed.
With a folder as second argument, the links are made there and kept for the next time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).parents[2]
LINKS = 50_000
SIZES = {"tiny": 4096, "large": 10_000_000}
_STEP = """
import pathlib, re, sys, time
import pyarrow.parquet as pq
from dyntok.corpus import freeze_plan, list_inputs
def clocks():
    return time.perf_counter(), time.process_time()
start = time.perf_counter(); sum(range(5 * 10**7)); loop = time.perf_counter() - start
begin = clocks()
freeze_plan(list_inputs([sys.argv[1]]), sys.argv[2], estimate_bytes=lambda item: 2_000_000, shard_size_bytes=10**9)
end = clocks()
peak = int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024
print(f"{end[0] - begin[0]:8.1f} s wall {end[1] - begin[1]:8.1f} s CPU {peak:6d} MB peak,"
      f" {pq.read_metadata(sys.argv[2]).num_rows:,} videos (a fixed loop took {loop:.2f} s)")
"""


def make(folder: Path, kind: str, count: int) -> None:
    """`folder/kind/0012/0012345.mp4`, and the manifest `folder/kind.jsonl` of them."""
    if (folder / f"{kind}.jsonl").exists():
        return
    sources = folder / f"source-{kind}"
    sources.mkdir()
    for number in range(count // LINKS + 1):
        with open(sources / str(number), "wb") as file:
            file.write(os.urandom(4096))
            file.truncate(SIZES[kind])
    for number in range(count):
        name = f"{kind}/{number // 1000:04d}/{number:07d}.mp4"
        if number % 1000 == 0:
            (folder / name).parent.mkdir(parents=True)
        os.link(sources / str(number // LINKS), folder / name)
    with open(folder / f"{kind}.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "path": f"{kind}/{number // 1000:04d}/{number:07d}.mp4",
                "id": f"clip/{number // 1000:04d}/{number:07d}",
                "caption": f"clip number {number}",
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    keep = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() if keep is None else nullcontext(str(keep)) as place:
        folder = Path(place)
        for kind in SIZES:
            make(folder, kind, count)
        for title, given in (
            ("manifest of tiny files", "tiny.jsonl"),
            ("folder of tiny files", "tiny"),
            ("manifest of large files", "large.jsonl"),
        ):
            plan = folder / "plan.parquet"
            environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(HERE / "pipelines"))}
            command = [sys.executable, "-c", _STEP, str(folder / given), str(plan)]
            for _ in range(2):  # the first one warms the page cache
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            print(f"{title:<26}{re.sub(chr(10), '', done.stdout)}", flush=True)


if __name__ == "__main__":
    main()
