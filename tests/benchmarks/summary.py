"""Runs benchmarks one after the other and ends with one table of their ratios, each beside its target and baseline.

Arguments choose benchmarks by name (`host pipeline`); none means all of them. What a benchmark prints goes to stderr,
the table to stdout. Ends with 1 if a benchmark failed; a missed target is told, and fails nothing, since timings depend
on the machine.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# It needs other libraries than dyntok does: `make bench-loaders`.
APART = {"loaders"}


@dataclass(frozen=True, slots=True)
class Ratio:
    """One line of the table; `target` is `<= x`, `>= x` or `-`."""

    name: str
    value: float
    target: str
    baseline: str

    @classmethod
    def parse(cls, line: str) -> Ratio | None:
        """From a line that `timing.report` printed; None for any other."""
        columns = line.rstrip("\n").split("\t")
        if len(columns) != 5 or columns[0] != "ratio":
            return None
        return cls(columns[1], float(columns[2]), columns[3], columns[4])

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where there is no target."""
        sign, _, number = self.target.partition(" ")
        if sign not in ("<=", ">="):
            return ""
        met = self.value <= float(number) if sign == "<=" else self.value >= float(number)
        return "met" if met else "missed"


def chosen(names: list[str]) -> list[Path]:
    """Scripts of these names, in their order; of all benchmarks if there are none. Raises SystemExit."""
    there = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = sorted(set(names) - there.keys())
    if unknown:
        raise SystemExit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(there)}")
    return [there[name] for name in names or (name for name in there if name not in APART)]


def run(script: Path) -> tuple[list[Ratio], int]:
    """Run one; what it prints is passed on. Its ratios and its exit code."""
    began = time.monotonic()
    print(f"\n=== {script.stem}", file=sys.stderr, flush=True)
    ratios = []
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if (ratio := Ratio.parse(line)) is not None:
                ratios.append(ratio)
            else:
                print(line, end="", file=sys.stderr, flush=True)
    print(f"=== {script.stem}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return ratios, process.returncode


def table(ratios: list[Ratio]) -> str:
    """All ratios, a line each."""
    rows = [("what", "ratio", "target", "", "against")]
    rows += [(r.name, f"{r.value:.2f}", r.target, r.verdict, r.baseline) for r in ratios]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column == 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def machine() -> str:
    """What the figures come from."""
    names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}, {platform.system()}"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    ratios: list[Ratio] = []
    failed = []
    for script in chosen(sys.argv[1:]):
        found, code = run(script)
        ratios += found
        if code:
            failed.append(script.stem)
    print(f"\n{machine()}\n\n{table(ratios)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
