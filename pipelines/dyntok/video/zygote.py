"""The parent of the decode processes: imports everything once, then forks a process whenever the pool asks.

It is a plain subprocess with a socket and runs nothing of the caller's `__main__`, so it works from scripts without a
guard, from test runners and from Ray actors. When the pool's end of the socket closes, by whatever cause, it kills
its children and goes; should it be killed itself, the kernel kills them.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from dyntok.errors import RunError
from dyntok.video.settings import DecodeSettings
from dyntok.video.worker import serve, settings_from_json

_MESSAGE = struct.Struct("<4sxxxxq")
_START_TIMEOUT_S = 180.0
_REAP_TIMEOUT_S = 1.0
UNKNOWN_STATUS = 1 << 20
_BUG_STATUS = 70
_PR_SET_PDEATHSIG = 1
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_BOOT = (
    "import json,sys; a=json.loads(sys.argv[1]); sys.path[:]=a['path']; "
    "from dyntok.video.zygote import main; main(a['control'], a['settings'])"
)


class Zygote:
    """The pool's handle on it."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_TIMEOUT_S)
        arguments = {"path": sys.path, "control": theirs.fileno(), "settings": asdict(settings)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                start_new_session=True,
            )

    def spawn(self, connection: int, ring: int) -> int:
        """Fork a decode process that talks over descriptor `connection`; its pid. Raises RunError."""
        return self._ask(b"fork", 0, [connection, ring])

    def kill(self, pid: int) -> int:
        """Kill a decode process if it still lives; its exit status, negative for a signal. Raises RunError."""
        return self._ask(b"kill", pid, [])

    def close(self) -> None:
        """Kill every decode process."""
        self._control.close()
        try:
            self._process.wait(_REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, what: bytes, value: int, descriptors: list[int]) -> int:
        try:
            socket.send_fds(self._control, [_MESSAGE.pack(what, value)], descriptors)
            data = self._control.recv(_MESSAGE.size, socket.MSG_WAITALL)
        except OSError as error:
            raise RunError(f"the decode processes cannot be started: {error}") from error
        if len(data) < _MESSAGE.size:
            raise RunError("the decode processes cannot be started; stderr says why")
        return int(_MESSAGE.unpack(data)[1])


def main(control: int, settings: dict[str, Any]) -> NoReturn:
    """Serve the pool at the other end of the socket `control` until it closes."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    with socket.socket(fileno=control) as pool, suppress(ConnectionError):
        pool.setblocking(True)
        while True:
            message, descriptors, _, _ = socket.recv_fds(pool, _MESSAGE.size, 2)
            if len(message) < _MESSAGE.size:
                break
            what, value = _MESSAGE.unpack(message)
            if what == b"fork":
                answer = _fork(pool, descriptors, settings_from_json(settings))
                children.add(answer)
            else:
                answer = _end(value, children)
            pool.sendall(_MESSAGE.pack(what, answer))
    for pid in children:
        _kill(pid)
    # Taking torch down in order may take a second.
    os._exit(0)


def _fork(pool: socket.socket, descriptors: list[int], settings: DecodeSettings) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        pool.close()
        _run_child(parent, descriptors, settings)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _run_child(parent: int, descriptors: list[int], settings: DecodeSettings) -> NoReturn:
    status = _BUG_STATUS
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            serve(Connection(descriptors[0]), descriptors[1], settings)
            status = 0
    except BaseException:  # noqa: BLE001 - a fork must never run on into the code of its parent
        traceback.print_exc()
    finally:
        os._exit(status)


def _end(pid: int, children: set[int]) -> int:
    """Kill a child and wait a little for its status: one that hangs in the kernel must not hold up the others."""
    if pid not in children:
        return UNKNOWN_STATUS
    _kill(pid)
    until = time.monotonic() + _REAP_TIMEOUT_S
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            children.discard(pid)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return UNKNOWN_STATUS


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
