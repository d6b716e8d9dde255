"""The end of every help shows how to begin, with flags that there are; and what is printed is never coloured."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from dyntok_cli.commands import COMMANDS
from dyntok_cli.examples import EXAMPLES
from dyntok_cli.options import SECTIONS, SETTINGS
from dyntok_cli.output import Output
from dyntok_cli.progress import CountingBar
from tests.cli.conftest import Ran


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES) == list(COMMANDS)
    for lines in EXAMPLES.values():
        assert 1 <= len(lines) <= 3


def test_every_setting_has_its_section(cli: Callable[..., Ran]) -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(SETTINGS)
    text = cli("encode", "--help").stdout
    parts = re.split(r"\n([A-Z][a-z]+):\n", text)
    assert parts[1::2] == ["Arguments", "Options", *SECTIONS]
    shown = dict(zip(parts[1::2], parts[2::2], strict=True))
    for section, names in SECTIONS.items():
        assert len(re.findall(r"^  --", shown[section], re.MULTILINE)) == len(names)
    assert "--frames <int>" in shown["Frames"] and "--out" in shown["Options"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_whose_flags_exist(command: str, cli: Callable[..., Ran]) -> None:
    text = cli(command, "--help").stdout
    options, _, examples = text.partition("\n  Examples:\n")
    assert [line.strip() for line in examples.strip().splitlines()] == list(EXAMPLES[command])
    flags = set(re.findall(r"--[a-z][a-z-]*", options.split("\nOptions:\n")[1]))
    for line in EXAMPLES[command]:
        program, name, *words = shlex.split(line)
        assert (program, name) == ("dyntok", command)
        assert {word for word in words if word.startswith("-")} <= flags


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "bar"), [("xterm-256color", True), ("dumb", False)])
def test_a_dumb_terminal_gets_no_bars(term: str, bar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    with redirect_stderr(stream), CountingBar(Output(), "verifying", "B") as progress:
        progress(1000, 1000)
    assert (stream.getvalue() != "") is bar


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["plain", "NO_COLOR", "dumb"])
def test_nothing_is_coloured_even_on_a_terminal(more: dict[str, str], store: Path) -> None:
    """On a real one, a pseudo-terminal; and a terminal that cannot redraw gets nothing that does."""
    pty = pytest.importorskip("pty")
    for words in (["--help"], ["status", str(store)], ["verify", str(store)], ["nonsense"]):
        parent, child = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **more}
        process = subprocess.Popen(
            [sys.executable, "-m", "dyntok_cli", *words],
            stdin=child,
            stdout=child,
            stderr=child,
            env=environment,
        )
        os.close(child)
        said = read_all(parent)
        process.wait(60)
        assert said
        assert not COLOUR.search(said)
        if more.get("TERM") == "dumb":
            assert "\x1b" not in said
            assert "\r" not in said.replace("\r\n", "\n")


def read_all(descriptor: int) -> str:
    """All that comes until the other end is closed."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux: nobody has the other end any more
            break
        if not part:
            break
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode()
