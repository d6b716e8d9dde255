"""The table that the benchmarks end in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.summary import Ratio, chosen, run, table
from tests.benchmarks.timing import report


def test_a_reported_ratio_is_found_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    report("host time", 0.345, "<= 0.4", "the script")
    ratio = Ratio.parse(capsys.readouterr().out)
    assert ratio is not None
    assert ratio.name == "host time"
    assert ratio.value == pytest.approx(0.345, abs=0.006)
    assert (ratio.target, ratio.baseline, ratio.verdict) == ("<= 0.4", "the script", "met")
    assert Ratio.parse("ratio of things\t3\n") is None


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (0.4, "<= 0.4", "met"),
        (0.41, "<= 0.4", "missed"),
        (0.95, ">= 0.95", "met"),
        (0.9, ">= 0.95", "missed"),
        (7, "-", ""),
    ],
)
def test_verdicts(value: float, target: str, verdict: str) -> None:
    assert Ratio("x", value, target, "y").verdict == verdict


def test_columns_stand_below_each_other() -> None:
    lines = table([Ratio("a", 1.5, "<= 2", "b"), Ratio("a longer name", 10.25, "-", "c")]).splitlines()
    assert lines[1].split() == ["a", "1.50", "<=", "2", "met", "b"]
    assert lines[1].index("1.50") + 4 == lines[2].index("10.25") + 5
    assert len({line.index(word) for line, word in zip(lines[1:], ("b", "c"), strict=True)}) == 1


def test_benchmarks_are_chosen_by_name() -> None:
    assert [path.name for path in chosen(["pipeline", "host"])] == ["bench_pipeline.py", "bench_host.py"]
    everything = {path.stem for path in chosen([])}
    assert {"bench_operator", "bench_memory"} <= everything
    assert "bench_loaders" not in everything
    with pytest.raises(SystemExit, match="no benchmark speed"):
        chosen(["speed"])


def test_output_passes_through_and_a_failure_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "bench_x.py"
    script.write_text("print('seconds: 3')\nprint('ratio\\tx\\t0.5\\t-\\ty')\nraise SystemExit(3)\n")
    assert run(script) == ([Ratio("x", 0.5, "-", "y")], 3)
    assert "seconds: 3" in capfd.readouterr().err


def test_every_benchmark_can_be_imported() -> None:
    """They are not run by the tests; what they use of the package must be there all the same."""
    names = [path.stem for path in chosen([])]
    code = "import importlib\n" + "\n".join(f"importlib.import_module('tests.benchmarks.{name}')" for name in names)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
