"""Ray itself: joined where there is a cluster, else started here for one run and ended with it."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray

from dyntok.config import EncodeConfig
from dyntok.errors import ConfigError, RunError
from dyntok.run.executors import ray_address
from dyntok.run.executors.ray.resources import Demand, Machine, demand, places

# Frames stay inside the actors; only work lists and small results pass through.
OBJECT_STORE_BYTES = 128 * 2**20
# A cluster that is being started has so long to answer.
CONNECT_TIMEOUT_S = 10.0


@contextmanager
def session(config: EncodeConfig) -> Iterator[Demand]:
    """Be connected to Ray, and know what to ask it for. A Ray that the caller has joined or started is used as it is.

    Ray prints to stdout, which belongs to the caller's data: meanwhile it goes to stderr.

    Raises:
        RunError: the cluster cannot be reached, or Ray cannot be started.
        ConfigError: this machine cannot hold what is asked for.
    """
    if ray.is_initialized():
        yield demand(config, machines())
        return
    address = ray_address(config)
    with _of_ours():
        if address is None:
            yield _start_here(config)
            return
        _join(address)
        yield demand(config, machines())


def cluster_has_gpus(address: str) -> bool:
    """Whether a node of the cluster has one now. Raises RunError if it cannot be reached."""
    if ray.is_initialized():
        return any(machine.gpus for machine in machines())
    with _of_ours():
        _join(address)
        return any(machine.gpus for machine in machines())


@contextmanager
def _of_ours() -> Iterator[None]:
    """A connection that is made in here ends with it; Ray's handler of SIGTERM goes, too."""
    before = signal.getsignal(signal.SIGTERM)
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()
            _restore(before)


def machines() -> list[Machine]:
    """The nodes that are alive."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in resources]


def alive_nodes() -> set[str]:
    """Ids of the nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _join(address: str) -> None:
    _knock(address)
    _init(address=address)


def _knock(address: str) -> None:
    """Raise RunError if nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdecimal():
        return
    until = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
                return
        except OSError as error:
            if time.monotonic() >= until:
                raise RunError(
                    f"cannot join the Ray cluster at {address}: {error.strerror or error}",
                    hint="`ray status` on its head shows whether it is there; --ray-address takes its host:port",
                ) from error
        time.sleep(0.5)


def _start_here(config: EncodeConfig) -> Demand:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count()
    here = Machine(cores, gpus)
    asked = demand(config, [here])
    if asked.gpus and asked.actors > places(here, asked.gpus):
        raise ConfigError(
            f"{asked.actors} actors of {asked.gpus:g} GPUs each do not fit the {gpus} GPUs of this machine",
            hint="lower --actors or --gpus-per-actor, or give --device cpu",
        )
    # Nobody else uses this Ray, so what was asked for must fit, even where processes are to share cores.
    total = max(cores, math.ceil(asked.actors * asked.cpus))
    _init(
        address="local",
        num_cpus=total,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    return asked


def _init(**settings: object) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = settings["address"]
        doing = "start Ray on this machine" if where == "local" else f"join the Ray cluster at {where}"
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"cannot {doing}: {text[0]}", hint="`ray status` shows whether a cluster is there") from error
    finally:
        _restore(before)


def _restore(handler: object) -> None:
    """Ray puts a handler of its own in place, which would end the process without a word."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
