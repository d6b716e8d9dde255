"""What `plan` expects of a corpus from a few of its videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dyntok.errors import StoreMismatchError
from dyntok.run import encode, estimate, freeze
from tests.support.runs import demo_config


@pytest.mark.parametrize(("videos", "probed"), [(3, 3), (16, 16), (17, 16), (31, 16), (33, 16)])
def test_so_many_videos_are_probed_and_no_more(videos: int, probed: int, tmp_path: Path, carphone: Path) -> None:
    for number in range(videos):
        os.link(carphone, tmp_path / f"{number:02}.mp4")
    report = estimate([str(tmp_path)], demo_config(frames=None, fps=1.0))
    assert (report.videos, report.probed, report.frames) == (videos, probed, 4 * videos)


def test_the_probed_videos_are_spread_over_the_corpus(tmp_path: Path, carphone: Path) -> None:
    """What lies at the end counts too: there the videos are unreadable as videos."""
    for number in range(15):
        os.link(carphone, tmp_path / f"{number:02}.mp4")
    for number in range(15, 30):
        (tmp_path / f"{number:02}.mp4").write_bytes(b"no video")
    assert estimate([str(tmp_path)], demo_config(frames=None, fps=1.0), probe=10).probed == 5
    assert estimate([str(tmp_path)], demo_config(frames=None, fps=1.0), probe=0).probed == 0


@pytest.mark.parametrize("call", [encode, freeze])
def test_a_folder_that_is_no_store_keeps_its_own_scratch(call: Any, carphone: Path, tmp_path: Path) -> None:
    """Another tool's `.tmp` beside its files is not ours to clear."""
    kept = tmp_path / "project" / ".tmp" / "notes"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    (tmp_path / "project" / "main.tex").write_text("mine too")
    with pytest.raises(StoreMismatchError, match="holds no store"):
        call([str(carphone)], str(tmp_path / "project"), demo_config())
    assert kept.read_text() == "mine"
