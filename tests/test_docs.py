"""What can be imported is documented, and the documentation's code runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import dyntok
from dyntok.errors import VIDEO_ERROR_CODES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", dyntok.__all__)
def test_every_exported_name_is_documented(name: str) -> None:
    assert f"dyntok.{name}" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("code", list(VIDEO_ERROR_CODES))
def test_every_error_class_is_documented(code: str) -> None:
    assert f"`{code}`" in (DOCS / "running.md").read_text()


def test_the_code_of_the_api_page_runs(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding comes last on the page and first here, for the other blocks read what it writes."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    shutil.copy(clip_folder / "bikes.mp4", tmp_path / "videos")
    names: dict[str, object] = {}
    for block in (blocks[0], blocks[5], *blocks[1:5]):
        exec(compile(block, "api.md", "exec"), names)
