from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dyntok_cli import checks
from dyntok_cli.checks import MISSING, OK, OPTIONAL, WARNING
from tests.cli.conftest import Ran


def state(found: list[checks.Check], name: str) -> str:
    return next(check.state for check in found if check.name == name)


def test_this_machine_is_sound(cli: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cli("doctor", tmp_path, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["ok"] is True
    found = {check["name"]: check for check in ran.json["checks"]}
    assert found["torch"]["detail"] == metadata.version("torch")
    assert "read 6 of 6 frames" in found["pyav"]["detail"]
    assert "read 6 of 6 frames" in found["decord"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_every_dependency_of_a_run_is_looked_at() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    block = pyproject.read_text().split("\ndependencies = [")[1].split("]")[0]
    wanted = {line.split(">=")[0].strip(' ",').lower() for line in block.splitlines() if ">=" in line}
    assert wanted - {"typer"} == {name.lower() for name in checks.REQUIRED}


def test_a_package_that_does_not_import_is_missing(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ran], tmp_path: Path
) -> None:
    monkeypatch.setitem(checks.REQUIRED, "dyntok-no-such-package", "dyntok_no_such_module")
    ran = cli("doctor", tmp_path)
    assert ran.code == 1
    assert "dyntok-no-such-package  missing" in ran.stdout
    assert "pip install dyntok-no-such-package" in ran.stderr


def test_two_decords_are_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(checks, "version", lambda name: "0.6.0" if name == "decord" else real(name))
    assert state(list(checks.decoders()), "decoders") == WARNING


def test_a_gpu_that_torch_cannot_use_is_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    first = next(iter(checks.devices()))
    assert first.state == WARNING
    assert "torch" in first.detail


def test_a_folder_that_is_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert state(list(checks.writing(file)), "folder") == MISSING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_missing(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert state(list(checks.writing(tmp_path / "new")), "folder") == MISSING
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    found = list(checks.writing(tmp_path / "a" / "b"))
    assert state(found, "folder") == OK
    assert list(tmp_path.iterdir()) == []


def test_what_only_some_uses_need_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_version", lambda name: None)
    found = {check.name: check for check in checks.extras()}
    assert found["s3://"].state == OPTIONAL
    assert "dyntok[s3]" in found["s3://"].detail


def test_a_folder_without_locks_is_a_trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert state(list(checks.writing(tmp_path)), "folder") == WARNING
