"""Runs for tests: encode in this process or through the command line, and compare stores byte by byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dyntok.config import EncodeConfig
from tests.support.warm import WarmPopen

ROOT = Path(__file__).parents[2]


def demo_config(**settings: Any) -> EncodeConfig:
    """A small, fast configuration: demo model, four frames a video, two decode processes."""
    return EncodeConfig.create(
        **{"model": "demo", "frames": 4, "batch_size": 4, "decode_workers": 2, "device": "cpu", **settings}
    )


def copied_clips(clip_folder: Path, folder: Path, times: int) -> Path:
    """`folder`, with so many copies of each real clip and a file that is none."""
    for number in range(times):
        for clip in sorted(clip_folder.glob("*.mp4")):
            shutil.copy(clip, folder / f"{number}-{clip.name}")
    (folder / "broken.mp4").write_text("no video")
    return folder


def command(*arguments: object) -> list[str]:
    """The command line of this checkout, as a process to start."""
    return [sys.executable, "-m", "dyntok_cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One torch thread a process, so that runs beside each other do not fight over cores."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "pipelines"), str(ROOT)]),
    }


def run_command(*arguments: object, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own that has imported what it needs."""
    words, pipe = command(*arguments), subprocess.PIPE
    with WarmPopen(words, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        try:
            said, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, process.returncode, said, errors)


def result_digests(out: Path) -> dict[str, str]:
    """sha256 of every file that must be the same between runs: shards, records, index, plan and marker."""
    digests = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and (name.startswith("shards/") or name in ("index.parquet", "row_marker.safetensors")):
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
