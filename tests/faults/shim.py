"""Faults at the n-th change of a file: a library in C that is loaded into the process, and what starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.runs import command, environment

SOURCE = Path(__file__).with_name("shim.c")


@dataclass(frozen=True, slots=True)
class Call:
    """A change of a file. `path` and `to` (of a rename or link) are relative to the folder."""

    number: int
    name: str
    path: str
    to: str
    struck: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended: exit code (negative for a signal), what it printed, and the calls it made."""

    code: int
    text: str
    calls: tuple[Call, ...]

    @property
    def struck(self) -> Call | None:
        return next((call for call in self.calls if call.struck), None)


def build_shim(folder: Path) -> Path:
    """Compile the library; skips the test where that cannot be done."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("faults at system calls need Linux and a C compiler")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def read_calls(log: Path) -> tuple[Call, ...]:
    """The log of a run, by number; several threads may have written their lines in another order."""
    if not log.exists():
        return ()
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    calls = [Call(int(number), name, path, to, bool(mark)) for number, name, path, to, mark in rows]
    return tuple(sorted(calls, key=lambda call: call.number))


class Machine:
    """Starts command lines by forks of one warm process. A context manager.

    `run` watches the changes below a folder and strikes at one of them; without a fault it only counts.
    """

    def __init__(self, library: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), "LD_PRELOAD": str(library), "HF_HUB_OFFLINE": "1"},
        )
        if self._answer() != "ready":
            raise AssertionError("the process that forks does not start")

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(
        self,
        *arguments: object,
        folder: Path | None = None,
        action: str = "count",
        number: int = 0,
        env: dict[str, str] | None = None,
        part_bytes: int | None = None,
        clock_jump_s: int = 0,
    ) -> Ended:
        """Run one command line to its end.

        `part_bytes` is the size of the parts in which uploads go. With `clock_jump_s` the wall clock jumps so far,
        forth and back, all the time.
        """
        self._count += 1
        log = self._scratch / f"{self._count}.log"
        output = self._scratch / f"{self._count}.out"
        fault = None if folder is None else [str(folder), action, number, str(log)]
        request = {
            "argv": [str(argument) for argument in arguments],
            "output": str(output),
            "fault": fault,
            "env": env or {},
            "part_bytes": part_bytes,
            "clock_jump_s": clock_jump_s,
        }
        if self._process.stdin is None:
            raise AssertionError
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        text = output.read_text() if output.exists() else ""  # killed before it could open it
        ended = Ended(code, text, read_calls(log))
        log.unlink(missing_ok=True)
        output.unlink(missing_ok=True)
        return ended

    @property
    def pid(self) -> int:
        return self._process.pid

    def _answer(self) -> str:
        if self._process.stdout is None:
            raise AssertionError
        return self._process.stdout.readline().strip()


def run_armed(
    library: Path, *arguments: object, folder: Path, log: Path, action: str = "count", number: int = 0
) -> Ended:
    """As `Machine.run`, by `dyntok` in an interpreter of its own."""
    env = {
        **environment(),
        "LD_PRELOAD": str(library),
        "DYNTOK_FAULT": f"{action} {number}",
        "DYNTOK_FAULT_FOLDER": str(folder),
        "DYNTOK_FAULT_LOG": str(log),
    }
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=env, check=False)
    return Ended(done.returncode, done.stdout + done.stderr, read_calls(log))
