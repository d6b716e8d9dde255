"""A process that has imported everything and forks for each command line: seconds become fractions of one.

What runs in the fork is `dyntok_cli.main.run`, as after `dyntok`. Its decode processes and its child for suspects are
started by the same strings that they boot from elsewhere, in forks too instead of new interpreters. That both ways do
the same to a store is shown in `test_points.py`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_NAME = 15


class ForkedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """`python -c CODE ARGUMENT` in a fork of this process; everything else as ever."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        if not isinstance(args, list) or args[:2] != [sys.executable, "-c"]:
            super()._execute_child(args, *more)
            return
        (_, _, _, pass_fds, _, env, _, _, _, *pipes, _, _, _, _, _, new_session, _) = more
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes
        self.pid = os.fork()
        if self.pid == 0:
            _boot(args, (p2cread, c2pwrite, errwrite), pass_fds, env, new_session)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def _boot(args: list[str], stdio: tuple[int, int, int], keep: tuple[int, ...], env: Any, new_session: bool) -> NoReturn:
    status = 70
    try:
        call_me("zygote" if "zygote" in args[2] else "probe")
        if new_session:
            os.setsid()
        for ours, theirs in enumerate(stdio):
            if theirs >= 0:
                os.dup2(theirs, ours)
        _close_others({0, 1, 2, *keep})
        if env is not None:
            os.environ.update(env)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
        sys.argv = ["-c", *args[3:]]
        exec(compile(args[2], "<boot>", "exec"), {"__name__": "__main__"})
        status = 0
    except BaseException:  # noqa: BLE001 - a fork must never run on into the code of its parent
        traceback.print_exc()
    finally:
        os._exit(status)


def call_me(name: str) -> None:
    """Give this process a name by which others can tell what it is."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _close_others(keep: set[int]) -> None:
    for handle in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if handle not in keep:
            with suppress(OSError):
                os.close(handle)


def run_child(request: dict[str, Any]) -> NoReturn:
    """One command line in this fork, its streams in a file."""
    status = 70
    try:
        call_me("driver")
        os.setsid()
        handle = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        _close_others({0, 1, 2})
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        subprocess.Popen = ForkedPopen  # type: ignore[misc]
        from dyntok.objects import multipart
        from dyntok_cli.main import main

        os.environ.update(request["env"])
        multipart.PART_BYTES = request["part_bytes"] or multipart.PART_BYTES
        ctypes.CDLL(None).dyntok_clock_jump(ctypes.c_long(request["clock_jump_s"]))
        if fault := request["fault"]:
            where, action, number, log = fault
            armed = ctypes.CDLL(None).dyntok_fault_arm(
                os.fsencode(where), action.encode(), ctypes.c_long(number), os.fsencode(log)
            )
            if armed:
                raise RuntimeError("the shim is not loaded")
        main(request["argv"])
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - a fork must never run on into the code of its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def warm_up() -> None:
    """Import what a run imports, some of which happens only once a model is loaded."""
    import importlib
    import pkgutil

    import torch

    torch.set_num_threads(1)
    import dyntok
    import dyntok_cli

    for package in (dyntok, dyntok_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "adapters", ".ray", ".crew", ".session", ".lmms_eval")):
                importlib.import_module(module.name)
    import s3fs  # noqa: F401

    from dyntok.vision import load_encoder

    load_encoder("demo", device="cpu")


def main() -> None:
    """Requests are lines of JSON on stdin; each answer is a line with the exit code."""
    warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run_child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
