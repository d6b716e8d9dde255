"""Peak memory of a process and all its descendants."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

import psutil


def peak_tree_bytes(
    arguments: Sequence[str], environment: dict[str, str], interval_s: float = 0.1
) -> tuple[int, subprocess.CompletedProcess[bytes]]:
    """Run a command; the largest sum of proportional set sizes (shared pages count once) over its process tree."""
    peak = 0
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, tree_bytes(root))
            time.sleep(interval_s)
        output = process.stdout.read() if process.stdout else b""
    return peak, subprocess.CompletedProcess(list(arguments), process.returncode, output)


def tree_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and its descendants now."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
