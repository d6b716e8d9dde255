"""`status` and the bookkeeping around a run, on a store of 10,000 shards with 100 videos each and no token in it.

Says wall and CPU seconds, each in a process of its own; `dyntok status` as a whole is the command, its start included.
The store lies in the temporary folder and is warm in the page cache. Arguments: shards, videos a shard.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.synthetic import synthetic_store

HERE = Path(__file__).parents[2]
_STATUS = ("from dyntok.run import StoreWatch", "StoreWatch(out).status()")
_AGAIN = ("from dyntok.run import StoreWatch\nw = StoreWatch(out)\nw.status()", "w.status()")
_KEEP = (
    "from dyntok.run.watch.survey import committed\nfrom dyntok.run.watch.outcome import open_plan\n"
    "from dyntok.store import StoreRoot\nroot = StoreRoot.open(out)",
    "plan = open_plan(root)\nassert len(committed(root, plan, plan.shard_numbers)) == plan.shards",
)
_FINALIZE = ("from dyntok.run import finalize", "finalize(out)")


def timed(title: str, out: Path, step: tuple[str, str]) -> None:
    code = (
        "import pathlib, re, sys, time\nout = sys.argv[1]\n"
        f"{step[0]}\nwall, cpu = time.perf_counter(), time.process_time()\n{step[1]}\n"
        "wall, cpu = time.perf_counter() - wall, time.process_time() - cpu\n"
        "peak = int(re.search(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]) // 1024\n"
        "print(f'{wall:8.2f} s wall {cpu:8.2f} s CPU {peak:6d} MB peak')"
    )
    print(f"{title:<58}{run([sys.executable, '-c', code, str(out)])}", flush=True)


def command(title: str, out: Path) -> None:
    start, before = time.perf_counter(), os.times()
    run([sys.executable, "-m", "dyntok_cli", "status", str(out)])
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    print(f"{title:<58}{wall:8.2f} s wall {cpu:8.2f} s CPU", flush=True)


def run(arguments: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{HERE / 'pipelines'}{os.pathsep}{HERE}"}
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()


def main() -> None:
    shards, videos = (int(text) for text in sys.argv[1:3]) if len(sys.argv) > 2 else (10_000, 100)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "store"
        synthetic_store(out, shards=shards, videos=videos, job_logs=16)
        records = sum(path.stat().st_size for path in out.glob("shards/shard-??????.json"))
        print(f"{shards:,} shards of {videos} videos, {records / 1e6:.0f} MB of records, load {os.getloadavg()[0]:.1f}")
        timed("status while encoding, with summaries in the logs", out, _STATUS)
        command("the command `dyntok status`", out)
        timed("the same again in one process (--watch)", out, _AGAIN)
        timed("what a run may keep: every record in full (start of a run)", out, _KEEP)
        timed("finalize: index and manifest", out, _FINALIZE)
        shutil.rmtree(out / "logs")
        timed("status of the complete store, from the index", out, _STATUS)
        (out / "manifest.json").unlink()
        timed("status without logs and index: every record read", out, _STATUS)


if __name__ == "__main__":
    main()
