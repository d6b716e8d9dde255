"""What happens before a command runs: imports, help, usage errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

import dyntok
from dyntok_cli.commands import COMMANDS
from dyntok_cli.group import load_command
from tests.cli.conftest import Ran

HEAVY = (
    "torch",
    "numpy",
    "pyarrow",
    "pydantic",
    "transformers",
    "av",
    "decord",
    "zarr",
    "yaml",
    "tqdm",
    "rich",
)


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom dyntok_cli.main import run\n"
        f"run({list(arguments)!r})\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    return {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_first_answer_imports_nothing_heavy(flag: str) -> None:
    assert not modules_after(flag) & set(HEAVY)


@pytest.mark.parametrize("command", ["encode", "demo"])
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    assert not modules_after(command, "--help") & set(HEAVY)


def test_a_command_is_imported_when_it_is_called() -> None:
    code = (
        "import sys\nfrom dyntok_cli.main import run\n"
        "for words in (['--help'], ['--version'], ['nonsense'], ['logs', '--help']):\n    run(words)\n"
        "print(*[name for name in sys.modules if name.startswith('dyntok_cli.commands.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split("\n")[-2] == "dyntok_cli.commands.logs"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    assert load_command(name).get_short_help_str(limit=1000) == COMMANDS[name]


def test_status_needs_no_torch(store: object) -> None:
    assert "torch" not in modules_after("status", str(store))


def test_version(cli: Callable[..., Ran]) -> None:
    ran = cli("--version")
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"dyntok {dyntok.__version__}\n", "")


def test_help_lists_every_command_with_its_whole_summary(cli: Callable[..., Ran]) -> None:
    ran = cli("--help")
    assert ran.code == 0
    for name in COMMANDS:
        line = next(line for line in ran.stdout.splitlines() if line.strip().startswith(f"{name} "))
        assert line.endswith("."), "the summary was cut"
        assert not line.endswith("..."), "the summary was cut"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_reports_json_and_debug(name: str, cli: Callable[..., Ran]) -> None:
    ran = cli(name, "--help")
    assert ran.code == 0
    assert "--json" in ran.stdout
    assert "--debug" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["nonsense"], "no such command 'nonsense'", "`dyntok --help` shows the usage"),
        (["encode", "--nonsense"], "no such option: --nonsense", "`dyntok encode --help` shows the usage"),
        (["encode", "a", "--frames", "x"], "invalid value for '--frames'", "`dyntok encode --help`"),
        (["encode", "a", "--format", "x"], "invalid value for '--format'", "`dyntok encode --help`"),
        (["status"], "missing argument 'STORE'", "`dyntok status --help`"),
        (["encode", "--model", "demo"], "no --out was given", "--out DIR"),
        (["encode", "a", "--out", "b"], "no model was given", "--model demo"),
        (["encode", "a", "--out", "b"], "no model was given", "--model llava-hf/"),
        (
            ["encode", "a", "--out", "b", "--model", "demo", "--thresholds", "x"],
            "thresholds: 'x' is no list",
            "0.4",
        ),
        (
            ["encode", "a", "--out", "b", "--model", "demo", "--frames", "0"],
            "frames: Input should be",
            "dyntok config",
        ),
        (["plan", "--model", "demo"], "no inputs were given", "give files"),
        (["encode", "--out", "no/such/folder"], "no inputs were given", "give files"),
        (["encode", "a", "--out", "b", "--config", "none.yaml"], "cannot read none.yaml", ""),
    ],
)
def test_usage_errors(arguments: list[str], error: str, hint: str, cli: Callable[..., Ran]) -> None:
    ran = cli(*arguments)
    assert ran.code == 2
    assert ran.stdout == ""
    assert ran.error.startswith(error)
    assert hint in ran.hint


def test_without_arguments_it_shows_the_help() -> None:
    done = subprocess.run([sys.executable, "-m", "dyntok_cli"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: dyntok" in done.stdout


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "dyntok_cli", "config"], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b""
    assert done.returncode == 1


def test_output_that_the_terminal_cannot_show_is_escaped() -> None:
    code = "from dyntok_cli.output import print_text; print_text('bikes \\u65e5')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True, text=True)
    assert done.stdout == "bikes \\u65e5\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_130_and_a_hint(number: signal.Signals) -> None:
    code = (
        "import os, dyntok.run, dyntok_cli.main as cli\n"
        f"dyntok.run.encode = lambda *_, **__: os.kill(os.getpid(), {int(number)})\n"
        "cli.main(['demo'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == ("error: interrupted\n\nhint: what was committed stays; the same command resumes\n")
