from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dyntok_cli.checks import BAD, OK, OPTIONAL, WARN, Check, decoding, machine, packages, storage
from tests.cli.conftest import Ran


def state(found: list[Check], name: str) -> str:
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
    assert wanted - {"typer"} == {name.lower() for name in packages.REQUIRED}


def test_a_package_that_does_not_import_is_missing(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ran], tmp_path: Path
) -> None:
    monkeypatch.setitem(packages.REQUIRED, "dyntok-no-such-package", "dyntok_no_such_module")
    ran = cli("doctor", tmp_path)
    assert ran.code == 1
    assert "dyntok-no-such-package  bad" in ran.stdout
    assert "pip install dyntok-no-such-package" in ran.stderr


def test_two_decords_are_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(decoding, "version_of", lambda name: "0.6.0" if name == "decord" else real(name))
    assert state(list(decoding.decoders()), "decoders") == WARN


def test_a_gpu_that_torch_cannot_use_is_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    _, first, *_ = machine.devices()
    assert first.state == WARN
    assert "torch" in first.detail


def test_a_folder_that_is_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert state(list(storage.writing(file)), "folder") == BAD


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_bad(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert state(list(storage.writing(tmp_path / "new")), "folder") == BAD
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    found = list(storage.writing(tmp_path / "a" / "b"))
    assert state(found, "folder") == OK
    assert list(tmp_path.iterdir()) == []


def test_what_only_some_uses_need_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version_of", lambda name: None)
    found = {check.name: check for check in packages.extras()}
    assert found["s3://"].state == OPTIONAL
    assert "dyntok[s3]" in found["s3://"].detail


def test_a_folder_without_locks_is_a_trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert state(list(storage.writing(tmp_path)), "folder") == WARN


def test_every_finding_that_is_not_well_says_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: str) -> None:
        raise ValueError(names)

    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr("av.codec.Codec", refused)
    monkeypatch.setattr(storage, "SLOW_BYTES_PER_S", 1e15)
    monkeypatch.setattr(storage, "PROBE_BYTES", 10**6)
    monkeypatch.setattr(storage, "LITTLE_DISK", 1e18)
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 1e18)
    monkeypatch.setattr(machine, "LITTLE_SHARED_MEMORY", 1e18)
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    found = [
        *decoding.codecs(), *machine.resources(), *machine.cluster(), *storage.writing(file),
        *storage.writing(tmp_path), *storage.speed(tmp_path),
    ]  # fmt: skip
    ill = {check.name: check for check in found if check.state in (WARN, BAD)}
    assert set(ill) == {"codecs", "memory", "shared memory", "ray cluster", "folder", "disk", "disk speed"}
    assert all(check.hint for check in ill.values())


def test_the_usual_codecs_are_there() -> None:
    (check,) = decoding.codecs()
    assert check.state == OK
    for name in decoding.CODECS:
        assert name in check.detail


def test_a_codec_without_a_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CODECS", ("h264", "no_such_codec"))
    (check,) = decoding.codecs()
    assert (check.state, check.detail) == (WARN, "h264; no decoder for no_such_codec")


def test_a_disk_is_measured_with_few_bytes_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PROBE_BYTES", 8 * 10**6)
    (check,) = storage.speed(tmp_path / "new")
    assert check.detail.endswith("(8 MB)")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(storage, "PROBE_SECONDS", 0.0)
    assert storage._probe(tmp_path / "probe")[0] == 0, "the time is bounded too"


def test_a_ray_cluster_is_tried_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert list(machine.cluster()) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for value in (address, f"ray://{address}"):
            monkeypatch.setenv("RAY_ADDRESS", value)
            assert state(list(machine.cluster()), "ray cluster") == OK
    monkeypatch.setenv("RAY_ADDRESS", address)
    (closed,) = machine.cluster()
    assert closed.state == WARN
    assert address in closed.detail
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert state(list(machine.cluster()), "ray cluster") == OK


def test_the_model_cache_says_how_much_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "models--a--b").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(storage, "LITTLE_FOR_A_MODEL", 1e18)
    (check,) = storage.model_cache()
    assert check.state == WARN
    assert f"1 model in {tmp_path}" in check.detail
    assert "HF_HOME" in check.hint
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert state(list(storage.model_cache()), "model cache") == OK
