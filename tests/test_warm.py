"""A fork of a warm process begins and ends as a new interpreter does, and makes the same store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dyntok.run import encode
from tests.support.runs import command, demo_config, environment, result_digests
from tests.support.warm import WarmBoots, WarmPopen

PROGRAM = """
import atexit, os, signal, sys, threading, time
atexit.register(lambda: print("at the end"))
threading.Thread(target=lambda: (time.sleep(0.3), print("in a thread"))).start()
print(sys.argv, os.getcwd(), sorted(os.environ.items()), os.getpgid(0) == os.getpid(), os.getppid(), __name__)
print(sys.stdin.read(), os.read(int(sys.argv[1]), 9), signal.getsignal(signal.SIGINT))
print([number for number in range(999) if os.path.exists(f"/proc/self/fd/{number}")])
print("an error", file=sys.stderr)
sys.exit(7)
"""


def new_interpreter() -> type[subprocess.Popen[Any]]:
    """What `subprocess.Popen` is outside of these tests."""
    return WarmBoots.__mro__[1]


@pytest.mark.parametrize("session", [True, False])
def test_it_begins_and_ends_as_a_new_interpreter(tmp_path: Path, session: bool) -> None:
    ends = []
    for popen in (new_interpreter(), WarmPopen):
        given, written = os.pipe()
        os.write(written, b"by a pipe")
        os.close(written)
        process = popen(
            [sys.executable, "-c", PROGRAM, str(given), "two words"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[given],
            cwd=tmp_path,
            env={"ONE": "1", "PYTHONPATH": "", "LC_ALL": "C.UTF-8"},
            start_new_session=session,
        )
        ends.append((*process.communicate("by a file"), process.returncode))
        os.close(given)
    assert ends[0] == ends[1]
    assert ends[1][1:] == ("an error\n", 7) and "by a file b'by a pipe'" in ends[1][0]
    assert ends[1][0].endswith("in a thread\nat the end\n")


def test_it_is_a_child_that_can_be_killed_and_waited_for() -> None:
    process = WarmPopen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert psutil.Process(process.pid).ppid() == os.getpid() and process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_an_error_that_nobody_catches_is_shown() -> None:
    with WarmPopen([sys.executable, "-c", "1 / 0"], stderr=subprocess.PIPE, text=True) as process:
        _, errors = process.communicate()
    assert process.returncode == 1 and errors.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("code", ["None", "True", "256 + 3", "'a word'", "['no', 'number']"])
def test_whatever_it_exits_with(code: str) -> None:
    ends = []
    for popen in (new_interpreter(), WarmPopen):
        with popen([sys.executable, "-c", f"raise SystemExit({code})"], stderr=subprocess.PIPE, text=True) as process:
            ends.append((process.communicate()[1], process.returncode))
    assert ends[0] == ends[1]


def test_runs_make_the_same_store(carphone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process with warm decode processes and with others, and as a command line."""
    flags = ("--model", "demo", "--frames", 4, "--batch-size", 4, "--decode-workers", 2, "--device", "cpu")
    stores = [tmp_path / name for name in ("warm", "new", "warm command", "new command")]
    assert subprocess.Popen is WarmBoots
    encode([str(carphone)], str(stores[0]), demo_config())
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", new_interpreter())
        encode([str(carphone)], str(stores[1]), demo_config())
    for popen, out in zip((WarmPopen, new_interpreter()), stores[2:], strict=True):
        with popen(command("encode", carphone, "--out", out, *flags), stderr=subprocess.PIPE, env=environment()) as run:
            assert run.communicate()[1] is not None and run.returncode == 0
    digests = [result_digests(out) for out in stores]
    assert digests[0] and digests == digests[:1] * 4
