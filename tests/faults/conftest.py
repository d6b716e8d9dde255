"""One process that forks, and a small corpus, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.points import BROKEN, CLIPS, Campaign
from tests.faults.shim import Machine, build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def machine(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(shim, tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="session")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small clips, of which two are the same, and a file that is none; in three shards."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in CLIPS:
        shutil.copy(clip_folder / name.replace("again", "carphone_distorted"), folder / name)
    (folder / BROKEN).write_text("no video")
    return folder


@pytest.fixture(scope="session")
def tars(machine: Machine, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign.of(machine, corpus, tmp_path_factory.mktemp("tars") / "runs", "webdataset")


@pytest.fixture(scope="session")
def zarrs(machine: Machine, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign.of(machine, corpus, tmp_path_factory.mktemp("zarrs") / "runs", "zarr")


@pytest.fixture(scope="session")
def pairs(machine: Machine, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """With two decode processes, so that there is one more to be killed."""
    return Campaign.of(machine, corpus, tmp_path_factory.mktemp("pairs") / "runs", "webdataset", workers=2)
