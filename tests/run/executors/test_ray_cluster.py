"""Several nodes on one machine: one is lost, one comes later. And drivers that are stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dyntok.run import encode
from dyntok.store import verify
from tests.support.ray_runs import SETTINGS, Watcher, by_ray, events
from tests.support.runs import command, copied_clips, demo_config, environment, result_digests, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "150KB", "--device", "cpu")


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve copies of real clips and a file that is none, in several shards."""
    return copied_clips(clip_folder, tmp_path_factory.mktemp("corpus"), 3)


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local executor makes of it."""
    out = tmp_path_factory.mktemp("local") / "store"
    config = demo_config(executor="local", shard_size=SETTINGS["shard_size"])
    assert encode([str(corpus)], str(out), config).failed == 1
    return result_digests(out)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, to which tests add nodes; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(PYTHONPATH=environment()["PYTHONPATH"], RAY_worker_niceness="0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_costs_nothing_but_time(
    cluster: Any, corpus: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    out = tmp_path / "out"
    watcher = Watcher(3, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    by_ray(corpus, out, 2, watcher, cpus_per_actor=1)
    assert result_digests(out) == expected
    died = events(out, "died")
    assert [event["node_alive"] for event in died] == [False]
    assert not (out / "logs" / "attempts").exists()
    assert verify(str(out)).ok


def test_actors_are_asked_for_up_front_and_used_as_they_come(
    cluster: Any, corpus: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Ray adds nodes in the main thread only.
    run = threading.Thread(target=by_ray, args=(corpus, out, 3), kwargs={"cpus_per_actor": 1})
    run.start()
    time.sleep(3)
    assert not events(out, "actor")
    cluster.add_node(num_cpus=1)
    run.join()
    assert result_digests(out) == expected
    assert len(events(out, "actor")) == 1


def start(corpus: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command line with a Ray of its own, and at least one shard committed."""
    process = subprocess.Popen(
        command("encode", corpus, "--out", out, *FLAGS, "--executor", "ray", "--actors", 2, "--decode-workers", 1),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environment(), "RAY_worker_niceness": "0"},
        start_new_session=True,
    )
    while not list(out.glob("shards/shard-??????.json")):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_driver_leaves_a_resumable_store_and_no_processes(
    corpus: Path, expected: dict[str, str], tmp_path: Path, with_signal: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(corpus, out)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(with_signal)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert (b"shards in work have 20 s" in said) == (with_signal is signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not list((out / ".tmp").glob("shard-*"))
    assert run_command("encode", corpus, "--out", out, *FLAGS).returncode == 3
    assert result_digests(out) == expected


def test_a_killed_driver_takes_its_actors_with_it_and_resumes(
    corpus: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(corpus, out)
    family = psutil.Process(process.pid).children(recursive=True)
    # Two helpers of Ray itself wait a minute for its server before they go.
    helpers = [p for p in family if p.name().endswith("Agent")]
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs([p for p in family if p not in helpers], timeout=30)
    assert not alive
    assert run_command("encode", corpus, "--out", out, *FLAGS).returncode == 3
    assert result_digests(out) == expected
    assert verify(str(out)).ok
    _, alive = psutil.wait_procs(helpers, timeout=120)
    assert not alive
