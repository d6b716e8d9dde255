"""Private folders are nobody else's, and none outlives its process for long."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dyntok.objects import PrivateFolder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nobody_else_may_look(temporary: Path) -> None:
    folder = PrivateFolder()
    (folder.path / "a").write_text("x")
    for path in (folder.path, folder.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert temporary in folder.path.parents
    folder.close()
    folder.close()
    assert not folder.path.exists()


def test_it_goes_with_the_object() -> None:
    folder = PrivateFolder()
    path = folder.path
    del folder
    assert not path.exists()


HOLD = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from dyntok.objects import PrivateFolder
folder = PrivateFolder()
(folder.path / "left.video").write_bytes(b"x" * 1000)
print(folder.path, flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(temporary: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(temporary), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(temporary: Path) -> None:
    (alive, kept), (killed, left) = hold(temporary, 60), hold(temporary, 60)
    with alive, killed:
        own = PrivateFolder()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "left.video").exists()
        other = PrivateFolder()
        assert not left.exists()
        assert (kept / "left.video").exists() and own.path.exists()
        own.close()
        other.close()
        alive.kill()


def test_it_goes_with_the_process(temporary: Path) -> None:
    process, path = hold(temporary, 0)
    with process:
        assert process.wait(60) == 0
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_a_folder_that_somebody_else_prepared_is_not_used(temporary: Path) -> None:
    trap = temporary / f"dyntok-{os.getuid()}"
    trap.mkdir(mode=0o777)
    os.chown(trap, 12345, 12345)
    folder = PrivateFolder()
    assert trap not in folder.path.parents
    assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700


def test_a_link_is_not_followed(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"dyntok-{os.getuid()}").symlink_to(temporary / "elsewhere")
    assert PrivateFolder().path.parent.parent == temporary
    assert not list((temporary / "elsewhere").iterdir())
