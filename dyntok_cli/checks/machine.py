"""What a run computes with: GPUs, cores, memory, and a Ray cluster."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dyntok_cli.checks.finding import BAD, OK, WARN, Check, imported
from dyntok_cli.tables import size

LITTLE_SHARED_MEMORY = 2**28
LITTLE_MEMORY = 4 * 10**9
CONNECT_TIMEOUT_S = 3.0


def devices() -> Iterator[Check]:
    """What torch was built for, and what the model can run on."""
    torch = imported("torch")
    if torch is None:
        return
    yield Check("torch build", OK, _build(torch))
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _gpu(torch, number)
    elif Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
        built = torch.version.cuda
        why = f"built for CUDA {built}, which the driver does not serve" if built else "built without CUDA"
        yield Check(
            "device",
            WARN,
            f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it: {why}",
            "pip install torch --index-url https://download.pytorch.org/whl/cu128, or update the driver",
        )
    if torch.backends.mps.is_available():
        yield Check("device", OK, "mps")
    yield Check("device", OK, f"cpu, {torch.get_num_threads()} threads")


def _build(torch: Any) -> str:
    if torch.version.cuda:
        return f"for CUDA {torch.version.cuda}"
    return f"for ROCm {torch.version.hip}" if torch.version.hip else "for CPUs alone"


def _gpu(torch: Any, number: int) -> Check:
    """A GPU counts when a product comes out right on it."""
    properties = torch.cuda.get_device_properties(number)
    found = f"cuda:{number} {properties.name}, {size(properties.total_memory)}"
    try:
        ones = torch.ones(16, 16, device=f"cuda:{number}")
        right = bool((ones @ ones == 16).all())
    except RuntimeError as error:
        return Check("device", BAD, f"{found}: {error}", "nvidia-smi; or --device cpu")
    if not right:
        return Check("device", BAD, f"{found}: a matrix product is wrong", "take it out, or --device cpu")
    return Check("device", OK, found)


def resources() -> Iterator[Check]:
    """Cores, memory and shared memory that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    limit = f", limited to {int(quota[0]) / int(quota[1]):g}" if len(quota) == 2 and quota[0] != "max" else ""
    yield Check("cores", OK, f"{usable} usable of {os.cpu_count()}{limit}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield _memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _cgroup("memory.max"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        total = shutil.disk_usage(shared).total
        if total < LITTLE_SHARED_MEMORY:
            yield Check(
                "shared memory",
                WARN,
                f"{size(total)} in {shared}; decoded frames travel through it",
                "start the container with --shm-size=2g",
            )
        else:
            yield Check("shared memory", OK, size(total))


def _memory(total: int, cgroup: str) -> Check:
    limited = f", limited to {size(int(cgroup))}" if cgroup.isdecimal() else ""
    usable = min(total, int(cgroup)) if cgroup.isdecimal() else total
    found = f"{size(total)}{limited}"
    if usable < LITTLE_MEMORY:
        hint = "--decode-workers 1 --batch-size 4 need least; --decode-memory bounds a decode process"
        return Check("memory", WARN, f"{found}; little for a model and decode processes", hint)
    return Check("memory", OK, found)


def cluster() -> Iterator[Check]:
    """Whether something listens at RAY_ADDRESS, where `encode` would take its actors from."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        if address in ("auto", "local"):
            yield Check("ray cluster", OK, f"RAY_ADDRESS={address}: Ray looks for it on this machine")
        else:
            hint = "export RAY_ADDRESS=HOST:6379, or unset it"
            yield Check("ray cluster", WARN, f"RAY_ADDRESS={address} is no HOST:PORT", hint)
        return
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
            yield Check("ray cluster", OK, f"{host}:{port} (RAY_ADDRESS) accepts connections")
    except OSError as error:
        reason = error.strerror or str(error)
        hint = f"`ray status --address {host}:{port}`; or unset RAY_ADDRESS, or encode with --executor local"
        yield Check("ray cluster", WARN, f"{host}:{port} (RAY_ADDRESS) does not answer: {reason}", hint)


def _cgroup(name: str) -> str:
    """A limit of this process's control group (version 2), or nothing."""
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
