"""Killed, interrupted or out of disk: nothing committed is lost, and the same command finishes the same store."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dyntok.run import encode
from dyntok.store import verify
from tests.support.runs import command, copied_clips, demo_config, environment, result_digests, run_command
from tests.support.warm import WarmPopen

FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "150KB", "--device", "cpu")


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve copies of real clips and one file that is none, in several shards."""
    return copied_clips(clip_folder, tmp_path_factory.mktemp("corpus"), 3)


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Digests of an undisturbed run in a process of its own, and its seconds."""
    out = tmp_path_factory.mktemp("reference") / "store"
    start = time.monotonic()
    result = run_command("encode", corpus, "--out", out, "--decode-workers", 1, *FLAGS)
    assert result.returncode == 3, result.stderr
    return result_digests(out), time.monotonic() - start


def start(corpus: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    return WarmPopen(
        command("encode", corpus, "--out", out, *FLAGS, *flags),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def kill_until_done(corpus: Path, out: Path, kills: int, seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(kills):
        process = start(corpus, out, "--decode-workers", "4")
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.3, 1.1) * seconds)
        process.kill()
        process.wait()
    result = run_command("encode", corpus, "--out", out, *FLAGS, "--decode-workers", 4)
    assert result.returncode == 3, result.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twenty_times_equals_uninterrupted(
    corpus: Path, uninterrupted: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    expected, seconds = uninterrupted
    kill_until_done(corpus, tmp_path / "out", 20, seconds, seed=1)
    assert result_digests(tmp_path / "out") == expected
    assert verify(str(tmp_path / "out")).ok


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_leaves_a_resumable_store_and_no_processes(
    corpus: Path, uninterrupted: tuple[dict[str, str], float], tmp_path: Path, with_signal: signal.Signals
) -> None:
    expected, _ = uninterrupted
    out = tmp_path / "out"
    process = start(corpus, out, "--decode-workers", "1")
    while not list(out.glob("shards/shard-??????.json")):
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(with_signal)
    assert process.wait(60) == 130
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert not list((out / ".tmp").glob("*")) if (out / ".tmp").exists() else True
    assert run_command("encode", corpus, "--out", out, *FLAGS).returncode == 3
    assert result_digests(out) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where this machine lets us make one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_resume_works_afterwards(
    corpus: Path, uninterrupted: tuple[dict[str, str], float], small_disk: Path
) -> None:
    out = small_disk / "out"
    result = run_command("encode", corpus, "--out", out, *FLAGS)
    assert result.returncode == 1, result.stderr
    assert "No space left on device" in result.stderr
    assert "free some space" in result.stderr
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run_command("encode", corpus, "--out", out, *FLAGS).returncode == 3
    assert result_digests(out) == uninterrupted[0]


def test_a_failing_commit_keeps_what_was_committed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dyntok.errors import StoreError
    from dyntok.store import StoreRoot

    config = demo_config(shard_size="150KB", decode_workers=1)
    commit = StoreRoot.commit_file

    def failing(self: StoreRoot, local_tmp: Path, path: str, *stop: Callable[[], bool]) -> None:
        if path.endswith("shard-000002.tar"):
            raise StoreError(f"cannot write {path}: the device went away")
        commit(self, local_tmp, path, *stop)

    with monkeypatch.context() as patch:
        patch.setattr(StoreRoot, "commit_file", failing)
        with pytest.raises(StoreError, match="went away"):
            encode([str(corpus)], str(tmp_path / "out"), config)
    kept = result_digests(tmp_path / "out")
    assert {"shards/shard-000000.json", "shards/shard-000001.json"} <= kept.keys()
    encode([str(corpus)], str(tmp_path / "out"), config)
    after = result_digests(tmp_path / "out")
    assert {name: after[name] for name in kept if name.startswith("shards")} == {
        name: digest for name, digest in kept.items() if name.startswith("shards")
    }
