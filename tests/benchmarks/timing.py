"""Times functions in turn within one process, so that the machine's drift hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(functions: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median wall seconds of each function over `rounds` alternating rounds, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, times: Mapping[str, float], baseline: str, per: int = 1, unit: str = "frame") -> None:
    """Print milliseconds per unit and the ratio to the baseline."""
    print(title)
    for name, seconds in times.items():
        each = seconds * 1e3 / per
        print(f"  {name:<44} {each:9.3f} ms/{unit}   {seconds / times[baseline]:8.3f} x {baseline}")
    print()


def report(name: str, value: float, target: str, baseline: str) -> None:
    """Print a headline ratio as a line of four columns, which `summary.py` collects; `target` may be `-`."""
    print(f"ratio\t{name}\t{value:.3f}\t{target}\t{baseline}", flush=True)
