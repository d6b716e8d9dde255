"""Running the command line inside the test process, on real clips."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dyntok_cli.main import run


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command line did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The line `error: ...` without its prefix; its shape is checked."""
        lines = self.stderr.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert len(starts) == 1, self.stderr
        first = starts[0]
        if len(lines) > first + 1:
            assert lines[first + 1] == ""
            assert lines[first + 2].startswith("hint: ")
        return lines[first].removeprefix("error: ")

    @property
    def hint(self) -> str:
        return self.stderr.split("\nhint: ", 1)[1].strip() if "\nhint: " in self.stderr else ""


def dyntok(*arguments: object) -> Ran:
    """Run `dyntok ARGUMENTS` in this process; neither stream is a terminal."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = run([str(argument) for argument in arguments])
    return Ran(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., Ran]:
    return dyntok


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> tuple[Path, Ran]:
    """A complete store of two real clips, made by `dyntok demo`, and what that printed. Not to be changed."""
    out = tmp_path_factory.mktemp("cli") / "demo"
    clips = sorted(clip_folder.glob("carphone_*.mp4"))
    ran = dyntok("demo", *clips, "--out", out, "--frames", 3)
    assert ran.code == 0, ran.stderr
    return out, ran


@pytest.fixture(scope="session")
def store(demo: tuple[Path, Ran]) -> Path:
    return demo[0]


def digests(store: Path) -> dict[str, str]:
    """sha256 of every file that is part of a store's result."""
    files = [file for file in sorted(store.rglob("*")) if file.is_file()]
    parts = {file: file.relative_to(store).parts for file in files}
    return {
        "/".join(parts[file]): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if parts[file][0] not in ("logs", ".tmp", ".lock")
    }
