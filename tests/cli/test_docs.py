"""The pages name everything that is there, and nothing that is not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dyntok_cli import errors
from dyntok_cli.commands import COMMANDS
from tests.cli.conftest import Ran

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "cli.md").read_text()
README = (HERE / "README.md").read_text()


def section(command: str) -> str:
    return PAGE.split(f"\n## {command}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_every_command_is_documented(command: str, cli: Callable[..., Ran]) -> None:
    options = cli(command, "--help").stdout.split("\nOptions:\n")[1]
    flags = {flag for line in re.findall(r"^  (-.*)$", options, re.MULTILINE) for flag in flags_of(line)}
    assert flags
    general = {"--help", "--debug"}
    shared = general | flags_of(section("encode")) if command in ("plan", "config") else general
    assert flags - shared - flags_of(section(command)) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_is_documented_that_is_not_there(command: str, cli: Callable[..., Ran]) -> None:
    real = flags_of(cli(command, "--help").stdout)
    named = flags_of("\n".join(re.findall(rf"^dyntok {command} .*$|^\| `--.*$", section(command), re.MULTILINE)))
    assert named - real == set()


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_every_command_is_in_the_table_and_in_the_right_order() -> None:
    assert re.findall(r"^\| \[`dyntok (\w+)`\]", PAGE, re.MULTILINE) == list(COMMANDS)


def test_every_exit_code_is_documented() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == {
        errors.OK,
        errors.FAILURE,
        errors.USAGE,
        errors.FAILED_VIDEOS,
        errors.DAMAGE,
        errors.INTERRUPTED,
    }


@pytest.mark.parametrize("page", [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if heading:
            slugs = [slug(line) for line in linked.read_text().splitlines() if line.startswith("#")]
            assert heading in slugs, target


def slug(line: str) -> str:
    return re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")


def test_the_python_of_the_readme_runs(store: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = "\n".join(blocks).replace("tokens/", f"{store}/")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "carphone_pristine.mp4 torch.Size(" in done.stdout


def test_the_commands_of_the_readme_parse(cli: Callable[..., Ran]) -> None:
    lines = [line for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("dyntok ")]
    assert ["doctor"] in commands
    for command in commands:
        real = flags_of(cli(command[0], "--help").stdout)
        assert {word for word in command if word.startswith("--")} <= real
