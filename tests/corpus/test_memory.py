"""A manifest of a million lines becomes a plan in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LINES = 1_000_000
LIMIT_MB = 300

# Peak memory is that of a process, so each step runs in one of its own and reports what it added to the imports.
_STEPS = {
    "freeze": """
freeze_plan(
    list_inputs([manifest]), plan, estimate_bytes=lambda item: 2_000_000, shard_size_bytes=10**9
)
""",
    "read": """
with FrozenPlan.open(plan) as opened:
    assert opened.videos == LINES and opened.shards == LINES // 500
    assert sum(len(opened.shard(number)) for number in opened.shard_numbers) == LINES
""",
    "compare": """
with FrozenPlan.open(plan) as opened:
    assert compare_plan(opened, list_inputs([manifest])) == PlanDifference()
""",
}
# `ru_maxrss` would include what the parent held when it forked; VmHWM starts anew with each program.
_RUN = """
import pathlib, re, sys
from dyntok.corpus import FrozenPlan, PlanDifference, compare_plan, freeze_plan, list_inputs
manifest, plan, LINES = sys.argv[1], sys.argv[2], int(sys.argv[3])
def peak_kb():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
before = peak_kb()
{step}
print((peak_kb() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.timeout(900)
def test_a_million_lines(tmp_path: Path) -> None:
    manifest, plan = tmp_path / "m.jsonl", tmp_path / "plan.parquet"
    with manifest.open("w") as file:
        for i in range(LINES):
            row = {
                "path": f"clips/{i:07}.mp4",
                "id": f"clip/{i // 1000:04}/{i:07}",
                "caption": f"clip number {i}",
            }
            file.write(json.dumps(row) + "\n")
    for name, step in _STEPS.items():
        command = [sys.executable, "-c", _RUN.format(step=step), str(manifest), str(plan), str(LINES)]
        added_mb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert 1 <= added_mb < LIMIT_MB, f"{name} took {added_mb} MB"
        print(f"{name}: {added_mb} MB more than the imports")
