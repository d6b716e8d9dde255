"""`~` is the home folder wherever a path can be given; a shell expands it only at the beginning of a bare word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dyntok_cli.commands import COMMANDS
from dyntok_cli.group import load_command
from dyntok_cli.options import PATHS
from tests.cli.conftest import Ran


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carphone: Path) -> Path:
    """A home folder with a clip, from which commands are called elsewhere."""
    (tmp_path / "home/clips").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    shutil.copy(carphone, tmp_path / "home/clips/a.mp4")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_in_flags_arguments_and_the_yaml_file(home: Path, cli: Callable[..., Ran]) -> None:
    (home / "mine.yaml").write_text("frames: 2\nmodel: demo\ndecode_workers: 1\n")
    ran = cli("encode", "~/clips/*.mp4", "--out=~/tokens", "--config=~/mine.yaml", "--metrics-file=~/m.prom")
    assert ran.code == 0, ran.stderr
    assert (home / "tokens/index.parquet").exists()
    assert (home / "m.prom").exists()
    assert cli("status", "~/tokens").code == 0
    assert cli("stats", "~/tokens", "--parquet=~/videos.parquet").code == 0
    assert cli("inspect", "~/tokens", "a.mp4", "--png=~/a.png", "--source=~/clips/a.mp4").code == 0
    assert cli("convert", "~/tokens", "~/zarr", "--format", "zarr").code == 0
    assert cli("config", "init", "~/new.yaml").code == 0
    assert cli("config", "show", "~/mine.yaml", "--out=~/tokens").code == 0
    names = {path.name for path in home.iterdir()}
    assert {"tokens", "videos.parquet", "a.png", "zarr", "new.yaml"} <= names
    assert list(Path.cwd().iterdir()) == []


def test_a_model_is_a_folder_too_by_flag_and_by_file(home: Path, cli: Callable[..., Ran]) -> None:
    (home / "mine.yaml").write_text("model: ~/models/llava\n")
    for words in (("--model=~/models/llava",), ("~/mine.yaml",)):
        shown = cli("config", "show", *words, "--json").json["settings"]["model"]["value"]
        assert shown == str(home / "models/llava")
    refused = cli("plan", "~/clips", "--model=~/models/llava")
    assert str(home / "models/llava") in refused.error


def test_the_tilde_counts_at_the_beginning_alone(home: Path, cli: Callable[..., Ran]) -> None:
    for out in ("a~", "./~", "~no-such-user/tokens"):
        assert cli("plan", str(home / "clips"), "--model", "demo", "--out", out).code == 0
    assert (Path.cwd() / "a~/plan.parquet").exists()
    assert (Path.cwd() / "~/plan.parquet").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_called_a_path_is_one(command: str) -> None:
    """New flags for files keep to the names by which `~` is found."""
    others = {
        "ID",
        "COLUMN",
        "SECONDS",
        "PIXELS",
        "TOKENS",
        "HOST:PORT",
        "SIZE",
        "N",
        "I",
        "T,T,...",
        "[init|show]",
    }
    for parameter in load_command(command).params:
        if parameter.metavar is not None:
            assert (parameter.metavar.partition(".")[0] in PATHS) != (parameter.metavar in others)
        else:
            words = (parameter.help or "").lower()
            assert parameter.name == "model" or not any(word in words for word in ("folder", "url", "file "))
