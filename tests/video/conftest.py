"""Clips made once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dyntok.records import SourceRef
from dyntok.video import DecodeLimits
from dyntok.video.container import OpenVideo
from dyntok.video.index import FrameIndex, build_frame_index
from tests.support.clips import make_clip

Clip = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def real_processes(real_boots: None) -> None:
    """Here decode processes are the subject."""


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """`clip("cut.mp4")` is the path of that odd video, see `tests.support.clips.CLIPS`."""
    folder = tmp_path_factory.mktemp("clips")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = make_clip(name, folder / name.replace(".", "_"))
        return made[name]

    return make


def index_of(path: Path) -> FrameIndex:
    with OpenVideo(SourceRef(str(path)), None, DecodeLimits()) as video:
        return build_frame_index(video)
