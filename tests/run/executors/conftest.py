"""One Ray for all tests of a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.poison import magenta_clip
from tests.support.runs import environment


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    # Ray gives its processes a low priority, which on a busy machine lets tests wait for minutes.
    os.environ.update(PYTHONPATH=environment()["PYTHONPATH"], RAY_worker_niceness="0")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def poisoned(clip_folder: Path, tmp_path: Path) -> Path:
    """Three good clips and one that kills the model of `tests.support.poison`."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c", "d"):
        shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{name}.mp4")
    magenta_clip(folder / "b.mp4")
    return folder
