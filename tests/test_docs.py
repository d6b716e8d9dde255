"""What can be imported is documented, and the documentation's code runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import dyntok
import dyntok_cli
from dyntok.errors import VIDEO_ERROR_CODES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", dyntok.__all__)
def test_every_exported_name_is_documented(name: str) -> None:
    assert f"dyntok.{name}" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("code", list(VIDEO_ERROR_CODES))
def test_every_error_class_is_documented(code: str) -> None:
    assert f"`{code}`" in (DOCS / "running.md").read_text()


def code_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(page: str, blocks: list[str]) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def videos(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two clips in `videos/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(clip_folder / name, tmp_path / "videos")
    return tmp_path


def test_the_code_of_the_api_page_runs(videos: Path) -> None:
    """Encoding comes last on the page and first here, for the other blocks read what it writes."""
    first, *middle, last = code_of("api.md")
    assert "dyntok.encode(" in last
    run("api.md", [first, last, *middle])


def test_the_code_of_the_training_page_runs(videos: Path) -> None:
    names = run("training.md", code_of("training.md"))
    losses = names["losses"]
    assert isinstance(losses, list)
    # Three epochs of two batches, stopped after three of them.
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_the_code_of_the_page_on_choosing_runs(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("choosing.md", code_of("choosing.md"))
    assert "10 of 16 frames" in capsys.readouterr().out


def test_the_code_of_the_statistics_page_runs(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dyntok.EncodeConfig(model="demo", frames=2)
    dyntok.encode(["videos"], "tokens", config)
    run("statistics.md", code_of("statistics.md"))
    tokens, patches = map(int, capsys.readouterr().out.split("\n")[0].split())
    store = dyntok.open("tokens")
    assert tokens == sum(len(store[video_id].at(threshold=0.5)) for video_id in store.ids)
    assert patches == 2 * 2 * 196


def test_the_code_of_the_page_on_pictures_runs(videos: Path) -> None:
    encoding = code_of("choosing.md")[0]
    run("pictures.md", [encoding, *code_of("pictures.md")])
    assert (videos / "frame.png").read_bytes().startswith(b"\x89PNG")
    assert (videos / "clip.gif").read_bytes().startswith(b"GIF89a")


def test_the_code_of_the_evaluation_page_runs(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluation.md", code_of("evaluation.md"))
    # Four frames of two videos, unmerged: 784 tokens, one marker, and the text.
    assert "threshold=1.0, budget=None, frames=None, markers='video') 8" in capsys.readouterr().out


def test_the_figures_worked_out_on_the_page_on_scale_are_those_of_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("scale.md", code_of("scale.md"))
    assert f"```\n{capsys.readouterr().out}```" in (DOCS / "scale.md").read_text()


def test_the_architecture_page_names_every_room_and_nothing_else() -> None:
    page = (DOCS / "architecture.md").read_text()
    top = Path(dyntok.__file__).parent
    cli = Path(dyntok_cli.__file__).parent
    rooms = {str(f.parent.relative_to(top.parent)).replace("/", ".") for f in top.rglob("__init__.py")}
    rooms |= {str(f.parent.relative_to(cli.parent)) for f in cli.rglob("__init__.py")}
    named = re.findall(r"^\| `([a-z_./]+)` \|", page.split("## Rooms")[1].split("## Rules")[0], re.MULTILINE)
    assert sorted(named) == sorted(rooms - {"dyntok"})


def test_the_files_that_the_architecture_page_names_exist() -> None:
    page = (DOCS / "architecture.md").read_text()
    top = Path(dyntok.__file__).parent
    table = page.split("## Where do I change X?")[1]
    paths = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?|[a-z_]+\.py)`", table)
    assert len(paths) > 15
    for path in paths:
        assert any((folder / path).exists() for folder in (top, top.parents[1])), path
