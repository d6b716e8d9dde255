"""Completion through the protocol that the scripts of bash, zsh and fish speak, and those scripts themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dyntok_cli.commands import COMMANDS

PROGRAM = "from dyntok_cli.main import main; main()"
HEAVY = {"torch", "numpy", "pyarrow", "transformers", "av", "decord", "zarr", "yaml", "tqdm"}


def asked(shell: str, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What the program answers when `shell` asks for the end of `line`."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_DYNTOK_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        **more,
    }
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("dyntok ver", "verify"),
        ("dyntok encode --thresh", "--thresholds"),
        ("dyntok encode --dtype b", "bfloat16"),
        ("dyntok config sh", "show"),
    ],
)
def test_words_are_completed(shell: str, line: str, word: str) -> None:
    done = asked(shell, line)
    assert (done.returncode, done.stderr) == (0, "")
    assert word in done.stdout
    assert "doctor" not in done.stdout


def test_every_command_is_offered() -> None:
    assert asked("bash", "dyntok ").stdout.split() == list(COMMANDS)


@pytest.mark.parametrize(
    ("line", "word", "heavy"),
    [
        ("dyntok en", "encode", HEAVY | {"pydantic"}),
        # Typer itself takes pydantic to convert a command's arguments.
        ("dyntok encode --fr", "--frames", HEAVY),
    ],
)
def test_completing_imports_nothing_heavy(line: str, word: str, heavy: set[str]) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr))\n" + PROGRAM
    )
    environment = {
        **os.environ,
        "_DYNTOK_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [word]
    assert not heavy & set(done.stderr.split())


def installed(shell: str, home: Path, flag: str) -> subprocess.CompletedProcess[str]:
    """`dyntok --install-completion` or `--show-completion`, as if called from `shell`."""
    environment = {**os.environ, "HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, flag, shell],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/dyntok.sh"),
        ("zsh", ".zfunc/_dyntok"),
        ("fish", ".config/fish/completions/dyntok.fish"),
    ],
)
def test_installing_puts_the_script_where_the_shell_looks(shell: str, file: str, tmp_path: Path) -> None:
    shown = installed(shell, tmp_path, "--show-completion").stdout
    assert f"complete_{shell}" in shown
    assert list(tmp_path.iterdir()) == []
    assert file in installed(shell, tmp_path, "--install-completion").stdout
    assert (tmp_path / file).read_text().strip() == shown.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    program = tmp_path / "dyntok"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{PROGRAM}' \"$@\"\n")
    program.chmod(0o700)
    script = installed("bash", tmp_path, "--show-completion").stdout
    function = script.split("()")[0].strip()
    asking = (
        f"{script}\nCOMP_WORDS=(dyntok encode --thresh); COMP_CWORD=2\n"
        f'{function} dyntok\nprintf "%s\\n" "${{COMPREPLY[@]}}"\ncomplete -p dyntok'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", asking],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["--thresholds", f"complete -o default -F {function} dyntok"]
