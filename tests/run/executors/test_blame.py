"""A video is blamed for the death of a process alone: not for errors of the device, nor for faults in code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dyntok.errors import DyntokError, RunError
from dyntok.run import encode
from dyntok.run.executors import local
from dyntok.run.executors.deaths import probing
from dyntok.run.executors.deaths.ledger import ATTEMPT_FOLDER
from dyntok.run.shard.model import explain_device_errors
from dyntok.run.watch.outcome import open_plan
from dyntok.store import StoreRoot, plan_digest
from tests.support import poison
from tests.support.runs import demo_config

CONFIG = demo_config(executor="local", decode_workers=1, max_attempts=1, shard_size="1GB")


@pytest.fixture
def videos(clip_folder: Path, tmp_path: Path) -> Path:
    """A good clip and one of plain magenta, both healthy."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clip_folder / "carphone_pristine.mp4", folder / "a.mp4")
    poison.magenta_clip(folder / "b.mp4")
    return folder


Poison = Callable[[type[poison.PoisonedEncoder] | None], None]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Poison:
    """The model of the next runs and of the child that they start; None for a sound one."""
    load = local.load_model

    def with_encoder(encoder: type[poison.PoisonedEncoder] | None) -> None:
        if encoder is None:
            monkeypatch.setattr(local, "load_model", load)
            monkeypatch.setattr(probing, "CHILD", probing.__name__)
            return
        monkeypatch.setattr(local, "load_model", lambda config: encoder(load(config)))
        monkeypatch.setattr(probing, "CHILD", poison.__name__)
        monkeypatch.setenv(poison.CHILD_ENCODER, encoder.__name__)

    return with_encoder


def traces(out: Path) -> list[Path]:
    """Files that say what was in work or who is blamed."""
    return [path for name in ("marks", "attempts") for path in (out / "logs" / name).glob("*")]


def left_by_a_dead_run(out: Path) -> Path:
    """Marks that name both videos as in work."""
    marks = out / "logs" / "marks" / "gone-1-abc"
    marks.write_text("begun 0 0\nbegun 0 1\n")
    return marks


@pytest.mark.parametrize(
    ("encoder", "error", "said"),
    [
        (poison.FullEncoder, RunError, "not enough memory: CUDA out of memory"),
        pytest.param(poison.FailingEncoder, RunError, "the device failed: CUDA error", marks=pytest.mark.slow),
        pytest.param(poison.RaisingEncoder, ValueError, "met magenta", marks=pytest.mark.slow),
    ],
)
def test_an_error_ends_the_run_and_blames_no_video(
    videos: Path,
    tmp_path: Path,
    poisoned: Poison,
    encoder: type[poison.PoisonedEncoder],
    error: type[Exception],
    said: str,
) -> None:
    out = tmp_path / "out"
    poisoned(encoder)
    for _ in range(2):
        with pytest.raises(error, match=said) as caught:
            encode([str(videos)], str(out), CONFIG)
        assert not traces(out)
    if isinstance(caught.value, DyntokError):
        assert "--batch-size" in str(caught.value.hint)
    # Not even a video that was in work when a process died, where it raises an error alone.
    marks = left_by_a_dead_run(out)
    with pytest.raises(RunError, match=r"b\.mp4 cannot be looked into: .*" + said.split(":")[0]) as caught:
        encode([str(videos)], str(out), CONFIG)
    assert caught.value.hint
    assert traces(out) == [marks]
    poisoned(None)
    report = encode([str(videos)], str(out), CONFIG)
    assert (report.done, report.failed) == (2, 0)
    assert not traces(out)


def test_a_video_that_kills_its_process_is_blamed(videos: Path, tmp_path: Path, poisoned: Poison) -> None:
    out = tmp_path / "out"
    poisoned(poison.FullEncoder)
    with pytest.raises(RunError):
        encode([str(videos)], str(out), CONFIG)
    left_by_a_dead_run(out)
    poisoned(poison.CrashingEncoder)
    report = encode([str(videos)], str(out), CONFIG)
    assert (report.done, report.failed) == (1, 1)
    assert report.failures[0].error_class == "worker_died"


def test_whom_an_earlier_version_gave_up_is_tried_again(videos: Path, tmp_path: Path, poisoned: Poison) -> None:
    """It gave up videos over errors of the device, too."""
    out = tmp_path / "out"
    poisoned(poison.FullEncoder)
    with pytest.raises(RunError):
        encode([str(videos)], str(out), CONFIG)
    root = StoreRoot.open(out)
    with open_plan(root) as plan:
        digest = plan_digest(plan.shard(0))
    old = {"plan_digest": digest, "lost": 4, "alone": {"0": 2}, "quarantined": [1]}
    root.write_atomic(f"{ATTEMPT_FOLDER}/shard-000000.json", json.dumps(old).encode())
    poisoned(None)
    report = encode([str(videos)], str(out), CONFIG)
    assert (report.done, report.failed) == (2, 0)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (torch.OutOfMemoryError("HIP out of memory. Tried to allocate 2 GiB"), "end what else"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), "end what else"),
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
            "end what else",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: x"),
            "end",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
            "end what",
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "another device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "another device"),
        (RuntimeError("HIP error: hipErrorNoBinaryForGpu"), "another device"),
        (getattr(torch, "AcceleratorError", torch.OutOfMemoryError)("out of luck"), "--batch-size"),
    ],
)
def test_errors_of_devices_are_known(error: Exception, hint: str) -> None:
    with pytest.raises(RunError) as caught, explain_device_errors():
        raise error
    assert hint in str(caught.value.hint)
    assert "--batch-size" in str(caught.value.hint)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("can't start new thread"),
        ValueError("CUDA error: not from a device"),
        RunError("shard 3: CUDA error"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_device_errors():
        raise error
    assert caught.value is error


def test_memory_that_this_machine_does_not_have_is_known() -> None:
    with pytest.raises(RunError, match="not enough memory"), explain_device_errors():
        torch.empty(2**50)
