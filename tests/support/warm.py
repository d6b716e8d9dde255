"""Processes that begin with their libraries loaded: forks of one that has imported them, instead of new interpreters.

What they run, their streams, descriptors, folder and environment are those that `subprocess.Popen` was given, and they
are children of the process that asks. `test_warm.py` shows that they do what new interpreters do. Who starts and ends
decode processes as its subject (`tests/video`) starts real ones.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_ABOVE = 500  # descriptors that a fork is given wait there until those below are closed
_lock = threading.Lock()
_parents: dict[int, socket.socket] = {}  # by the process that asks: a fork of it starts its own


class WarmBoots(subprocess.Popen):  # type: ignore[type-arg]
    """Warm decode parents and children for suspects; whatever else is started begins as ever."""

    def _is_warm(self, args: Any) -> bool:
        """The strings that these processes boot from are those of the product."""
        homes = ("dyntok.video.zygote", "dyntok.run.executors.deaths.probing")
        boots = {getattr(sys.modules.get(home), "_BOOT", None) for home in homes}
        return isinstance(args, list) and args[:2] == [sys.executable, "-c"] and args[2] in boots

    def _execute_child(self, args: Any, *more: Any) -> None:
        (_, preexec, _, pass_fds, cwd, env, _, _, shell, *pipes, _, gid, gids, uid, umask, session, group) = more
        if not self._is_warm(args) or preexec or shell or (gid, gids, uid, umask, group) != (None, None, None, -1, -1):
            super()._execute_child(args, *more)
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes
        stdio = [given if given >= 0 else usual for usual, given in enumerate((p2cread, c2pwrite, errwrite))]
        request = {
            "argv": list(map(os.fsdecode, args[1:])),
            "env": dict(os.environ if env is None else env),
            "cwd": os.fsdecode(cwd or Path.cwd()),
            "session": session,
            "descriptors": [0, 1, 2, *pass_fds],
        }
        self.pid = _fork(request, [*stdio, *pass_fds])
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


class WarmPopen(WarmBoots):
    """Any `[sys.executable, "-m", MODULE, ...]` or `[sys.executable, "-c", CODE, ...]`, such as a command line."""

    def _is_warm(self, args: Any) -> bool:
        return isinstance(args, list) and args[0] == sys.executable and args[1] in ("-m", "-c")


def _fork(request: dict[str, Any], descriptors: list[int]) -> int:
    """Its process id. The fork is orphaned at once, and an orphan of our offspring becomes a child of ours."""
    with _lock, os.fdopen(os.memfd_create("request"), "w+") as file:
        json.dump(request, file)
        file.flush()
        parent = _parents.get(os.getpid()) or _start_parent()
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(parent, [b"."], [file.fileno(), *descriptors])
            return int(parent.recv(32))
        finally:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _start_parent() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        # For as long as this process lives: it goes when `ours` is closed.
        code = f"import sys; sys.path[:] = {sys.path}; from tests.support.warm import serve; serve({theirs.fileno()})"
        subprocess.Popen.__init__(
            subprocess.Popen.__new__(_Kept),
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    _parents[os.getpid()] = ours
    return ours


class _Kept(subprocess.Popen):  # type: ignore[type-arg]
    """Nobody waits for it, which is no fault."""

    def __del__(self) -> None:
        pass


def _prctl(what: int, value: int) -> None:
    if ctypes.CDLL(None).prctl(what, value, 0, 0, 0):
        raise OSError("prctl failed")


def serve(control: int) -> None:
    """Fork for every message on the socket `control` until it closes."""
    import torch

    import dyntok.video.zygote

    torch.set_num_threads(1)
    loaded = False
    with socket.socket(fileno=control) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, 1, 64)
            if not message:
                return
            with os.fdopen(descriptors[0]) as file:
                file.seek(0)
                request = json.load(file)
            # Decode processes need no models.
            if not loaded and request["argv"][1] != dyntok.video.zygote._BOOT:
                from tests.faults.forking import warm_up

                warm_up()
                loaded = True
            ours, theirs = os.pipe()
            between = os.fork()
            if between == 0:
                parent = os.getpid()
                pid = os.fork()
                if pid == 0:
                    while os.getppid() == parent:
                        time.sleep(0.001)
                    _run(request, descriptors[1:])
                os.write(theirs, str(pid).encode())
                os._exit(0)
            os.waitpid(between, 0)
            asked.sendall(os.read(ours, 32))
            for descriptor in (ours, theirs, *descriptors[1:]):
                os.close(descriptor)


def _run(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Become what was asked for, as a new interpreter would."""
    status = 1
    try:
        if request["session"]:
            os.setsid()
        above = [os.dup2(descriptor, _ABOVE + number) for number, descriptor in enumerate(descriptors)]
        os.closerange(0, _ABOVE)
        for given, wanted in zip(above, request["descriptors"], strict=True):
            os.dup2(given, wanted)
        os.closerange(_ABOVE, _ABOVE + len(above))
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        how, what, *arguments = request["argv"]
        sys.argv = [how, *arguments]
        if how == "-c":
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        else:
            from tests.faults.forking import ForkedPopen

            subprocess.Popen = ForkedPopen  # type: ignore[misc]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - a fork must never run on into the code of its parent
        traceback.print_exc()
    finally:
        # As an interpreter ends: threads first, then what was registered.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
