"""What the Ray executor decides before there is a Ray: executor, resources, arithmetic. And how a drain behaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dyntok.config import OPERATIONAL, EncodeConfig
from dyntok.errors import ConfigError, RunError
from dyntok.run import encode
from dyntok.run.executors import chosen
from dyntok.run.executors.drain import Drain
from dyntok.run.executors.ray.exchange import ActorTask
from dyntok.run.executors.ray.remains import (
    MARKS_FILE,
    MOST_BYTES,
    OUTPUT_FILE,
    STALE_S,
    read_output,
    read_remains,
    remove_stale_folders,
)
from dyntok.run.executors.ray.resources import Demand, Machine, demand
from dyntok.run.precision import resolve_precision
from tests.support.runs import demo_config, environment


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """So many GPUs in this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    return int(request.param)


@pytest.mark.parametrize(
    ("gpus", "settings", "executor"),
    [
        (0, {}, "local"),
        (1, {}, "local"),
        (2, {}, "ray"),
        (2, {"device": "cuda"}, "ray"),
        (2, {"device": "cuda:1"}, "local"),
        (2, {"device": "cpu"}, "local"),
        (2, {"executor": "local"}, "local"),
        (0, {"executor": "ray"}, "ray"),
        (0, {"ray_address": "head:6379"}, "ray"),
        (0, {"ray_address": "head:6379", "executor": "local"}, "local"),
    ],
    indirect=["gpus"],
)
def test_auto_takes_ray_for_several_gpus_or_an_address(gpus: int, settings: dict[str, object], executor: str) -> None:
    assert chosen(EncodeConfig.create(model="demo", **settings)) == executor


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_an_address_in_the_environment_counts(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert chosen(demo_config()) == "ray"


def test_ray_is_imported_for_ray_alone(clip_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from dyntok.run import encode; from tests.support.runs import demo_config; "
        "encode([sys.argv[1]], sys.argv[2], demo_config(frames=1)); assert 'ray' not in sys.modules"
    )
    arguments = [str(clip_folder / "carphone_pristine.mp4"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment())


def test_how_a_run_is_carried_out_does_not_change_its_hash() -> None:
    plain = EncodeConfig.create(model="demo")
    ray = EncodeConfig.create(
        model="demo",
        executor="ray",
        ray_address="head:6379",
        actors=7,
        gpus_per_actor=0.5,
        cpus_per_actor=3,
        max_attempts=5,
        grace_period_s=100,
    )
    assert ray.content_hash("x") == plain.content_hash("x")
    changed = {name for name in EncodeConfig.model_fields if getattr(ray, name) != getattr(plain, name)}
    assert len(changed) == 7
    assert changed <= OPERATIONAL


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"gpus_per_actor": 0, "device": "cuda"}, "contradicts"),
        ({"gpus_per_actor": 0.5, "device": "cpu"}, "does not go with"),
        ({"executor": "ray", "device": "cuda:1"}, "one GPU of one machine"),
        ({"ray_address": "head:1", "device": "cuda:0"}, "one GPU of one machine"),
        ({"max_attempts": 0}, "greater than"),
        ({"gpus_per_actor": 1.5}, "less than"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        EncodeConfig.create(model="demo", **settings)


LAPTOP = [Machine(8, 0)]
GPU_BOX = [Machine(64, 4)]
GPU_CLUSTER = [Machine(2, 0), Machine(32, 4), Machine(48, 4)]
CPU_CLUSTER = [Machine(0, 0), Machine(16, 0), Machine(8, 0)]


@pytest.mark.parametrize(
    ("machines", "settings", "expected"),
    [
        (LAPTOP, {}, Demand(1, 8, 0, 8, "cpu")),
        (LAPTOP, {"actors": 4}, Demand(4, 2, 0, 2, "cpu")),
        (LAPTOP, {"actors": 16}, Demand(16, 1, 0, 1, "cpu")),
        (LAPTOP, {"actors": 2, "decode_workers": 3}, Demand(2, 3, 0, 3, "cpu")),
        (LAPTOP, {"cpus_per_actor": 0.5}, Demand(1, 0.5, 0, 1, "cpu")),
        (LAPTOP, {"cpus_per_actor": 4}, Demand(1, 4, 0, 4, "cpu")),
        (GPU_BOX, {}, Demand(4, 16, 1, 16, "cuda")),
        (GPU_BOX, {"gpus_per_actor": 0.5}, Demand(8, 8, 0.5, 8, "cuda")),
        (GPU_BOX, {"device": "cpu"}, Demand(1, 16, 0, 16, "cpu")),
        (GPU_BOX, {"gpus_per_actor": 0}, Demand(1, 16, 0, 16, "cpu")),
        (GPU_CLUSTER, {}, Demand(8, 8, 1, 8, "cuda")),
        (GPU_CLUSTER, {"gpus_per_actor": 0.34}, Demand(16, 4, 0.34, 4, "cuda")),
        (CPU_CLUSTER, {}, Demand(2, 8, 0, 8, "cpu")),
        (CPU_CLUSTER, {"actors": 4}, Demand(4, 4, 0, 4, "cpu")),
        ([Machine(2, 0)], {"actors": 8, "device": "cuda"}, Demand(8, 1, 1, 1, "cuda")),
        ([], {"actors": 3, "decode_workers": 2}, Demand(3, 2, 0, 2, "cpu")),
    ],
)
def test_what_is_asked_of_ray(machines: list[Machine], settings: dict[str, object], expected: Demand) -> None:
    assert demand(EncodeConfig.create(model="demo", executor="ray", **settings), machines) == expected


def test_gpus_that_are_not_there_yet_must_be_counted_by_hand() -> None:
    with pytest.raises(ConfigError, match="no GPU") as caught:
        demand(EncodeConfig.create(model="demo", executor="ray", device="cuda"), CPU_CLUSTER)
    assert "--actors" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("gpus", "settings", "precision"),
    [
        (0, {}, "float32"),
        (1, {}, "bfloat16"),
        (1, {"device": "cpu"}, "float32"),
        (0, {"device": "cuda"}, "bfloat16"),
        (2, {"executor": "ray"}, "bfloat16"),
        (2, {"executor": "ray", "gpus_per_actor": 0}, "float32"),
        (0, {"executor": "ray", "ray_address": "head:1", "gpus_per_actor": 0.5}, "bfloat16"),
        (2, {"executor": "ray", "precision": "float16"}, "float16"),
    ],
    indirect=["gpus"],
)
def test_the_arithmetic_is_settled_before_anything_runs(gpus: int, settings: dict[str, object], precision: str) -> None:
    assert resolve_precision(EncodeConfig.create(model="demo", **settings)).precision == precision


def test_a_cluster_that_is_not_there_is_a_clear_error(
    bikes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dyntok.run.executors.ray import session

    monkeypatch.setattr(session, "CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(RunError, match=r"cannot join the Ray cluster at 127\.0\.0\.1:9: ") as caught:
        encode([str(bikes)], str(tmp_path / "out"), demo_config(ray_address="127.0.0.1:9"))
    assert caught.value.hint


def test_more_gpus_than_there_are_is_a_clear_error(bikes: Path, tmp_path: Path) -> None:
    config = demo_config(executor="ray", device="cuda", actors=64)
    with pytest.raises(ConfigError, match="64 actors of 1 GPUs each do not fit"):
        encode([str(bikes)], str(tmp_path / "out"), config)


# drain ----------------------------------------------------------------------------------------------------------


def test_the_first_sigterm_asks_and_the_second_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Drain(60) as drain:
        assert not drain.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert drain.asked
        assert not drain.expired
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_grace_period_ends_with_an_interrupt() -> None:
    with Drain(0.1) as drain, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert drain.expired


def test_a_drain_that_is_over_in_time_interrupts_nobody() -> None:
    with Drain(0.1):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)


# what actors leave behind ---------------------------------------------------------------------------------------


def test_what_an_actor_is_told_shows_no_credentials() -> None:
    """Ray puts the arguments of calls into its messages."""
    assert "word" not in repr(ActorTask("s3://user:word@bucket/out", *[None] * 6))  # type: ignore[arg-type]


def test_output_is_read_from_a_place_on_and_not_without_end(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"before\xff" + b"x" * 2 * MOST_BYTES + b"end")
    assert read_output(tmp_path / "output", 2 * MOST_BYTES + 7) == "end"
    assert read_output(tmp_path / "output", 0) == "x" * (MOST_BYTES - 3) + "end"
    assert read_output(tmp_path / "none", 0) == ""


def test_remains_are_read_once_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "dyntok-actor-1"
    folder.mkdir()
    (folder / MARKS_FILE).write_text("begun 3 1\n")
    (folder / "output").write_text("Segmentation fault")
    (folder / "spool").write_bytes(b"x" * 100)
    remains = read_remains(str(folder))
    assert remains.traces.suspects == ((3, 1),)
    assert remains.output == "Segmentation fault"
    assert not folder.exists()
    assert read_remains(str(folder)).output == ""


def test_old_folders_of_dead_actors_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dyntok.run.executors.deaths.marks import Marks

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("dead-old", "dead-new", "alive-old"):
        folder = tmp_path / f"dyntok-actor-{name}"
        folder.mkdir()
        (folder / MARKS_FILE).touch()
        if name.endswith("old"):
            os.utime(folder, (time.time() - 2 * STALE_S,) * 2)
    alive = tmp_path / "dyntok-actor-alive-old"
    marks = Marks(alive / MARKS_FILE)
    remove_stale_folders()
    assert {path.name for path in tmp_path.iterdir()} == {"dyntok-actor-dead-new", "dyntok-actor-alive-old"}
    marks.close()


@pytest.mark.parametrize(
    ("number", "crashed"), [(signal.SIGSEGV, True), (signal.SIGABRT, True), (signal.SIGKILL, False)]
)
def test_a_crash_is_told_from_a_kill(tmp_path: Path, number: signal.Signals, crashed: bool) -> None:
    """By what Python's fault handler writes: a killed process can write nothing."""
    program = f"import faulthandler, os; faulthandler.enable(2); os.kill(os.getpid(), {int(number)})"
    with (tmp_path / OUTPUT_FILE).open("wb") as output:
        done = subprocess.run([sys.executable, "-c", program], stderr=output, check=False)
    assert done.returncode == -number
    assert read_remains(str(tmp_path)).crashed is crashed
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("words", "crashed"),
    [
        ("*** SIGSEGV received at time=1 on cpu 1 ***", True),
        ("Fatal Python error: Aborted", True),
        ("*** SIGTERM received at time=1 on cpu 1 ***", False),
        ("a note on Fatal Python error", False),
    ],
)
def test_a_crash_is_known_however_many_stacks_follow(words: str, crashed: bool, tmp_path: Path) -> None:
    (tmp_path / OUTPUT_FILE).write_text("loaded\n" + words + "\n" + '  File "model.py", line 1 in forward\n' * 9000)
    remains = read_remains(str(tmp_path))
    assert remains.crashed is crashed
    assert len(remains.output) == MOST_BYTES
