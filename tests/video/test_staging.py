"""Remote videos come through the pool as local ones do, within a bounded folder that nothing outlives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from dyntok.errors import RunError, VideoError
from dyntok.objects import PrivateFolder, retries
from dyntok.records import SourceRef
from dyntok.video import DecodePool, DecodeTask, Failed, Finished, Opened
from dyntok.video import staging as staging_module
from dyntok.video.staging import Staged, Staging
from tests.support.faulty_fs import Fault, FaultyFileSystem, denied, faulty_store, reset, throttled
from tests.support.runs import environment
from tests.video.conftest import Clip
from tests.video.test_pool import Consumer, expected, settings, worker_pids

Faulty = type[FaultyFileSystem]


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    with faulty_store() as store:
        yield store
    assert not list(tmp_path.glob("dyntok-*/run-*")), "a folder was left behind"


def put(name: str, data: bytes) -> SourceRef:
    fsspec.filesystem("faulty").pipe_file(f"/films/{name}", data)
    return SourceRef(f"faulty://films/{name}")


def collect(staging: Staging, count: int) -> dict[int, Staged]:
    found: dict[int, Staged] = {}
    until = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < until, f"only {sorted(found)} came"
        for staged in staging.ready():
            found[staged.token] = staged
        time.sleep(0.005)
    return found


def content(staged: Staged) -> bytes:
    return Path(staged.ref.path).read_bytes()


# the pool ----------------------------------------------------------------------------------------------------


def test_remote_videos_are_decoded_as_local_ones(clip: Clip, bikes: Path, faulty: Faulty, tmp_path: Path) -> None:
    names = ("bframes.mp4", "uneven.mkv", "mpeg4.avi", "cut.mp4")
    paths = [clip(name) for name in names]
    whole = bikes.read_bytes()
    refs = [put(path.name, path.read_bytes()) for path in paths]
    refs.append(put("clips.tar", b"before" * 1000 + whole + b"after" * 1000))
    refs[-1] = SourceRef(refs[-1].path, 6000, len(whole))
    refs += [SourceRef("faulty://films/none.mp4"), SourceRef(str(bikes))]
    faulty.faults += [Fault("cat_file", times=3), Fault("cat_file|info", error=throttled, times=5)]
    with DecodePool(settings(), workers=2, queue_ahead=1) as pool:
        consumer = Consumer(pool)
        waiting = [DecodeTask(n, f"video {n}", ref) for n, ref in enumerate(refs)]
        while waiting or pool.in_flight:
            while waiting and pool.can_submit():
                pool.submit(waiting.pop(0))
            event = pool.next_event(60)
            assert event is not None
            consumer.take(event)
        assert not list(tmp_path.glob("dyntok-*/run-*/*")), "a video stays until it was decoded, no longer"
    for token, path in enumerate([*paths, bikes]):
        assert isinstance(consumer.ended[token], Finished)
        np.testing.assert_array_equal(consumer.all(token), expected(path), str(path))
    assert consumer.error(5).code == "not_found" and isinstance(consumer.ended[6], Finished)
    assert all(fault.done == fault.times for fault in faulty.faults)


def test_a_process_that_dies_finds_its_video_again(carphone: Path, faulty: Faulty) -> None:
    ref = put("film.mp4", carphone.read_bytes())
    with DecodePool(settings(), workers=1) as pool:
        consumer = Consumer(pool)
        pool.submit(DecodeTask(0, "film", ref))
        killed = False
        while pool.in_flight:
            event = pool.next_event(60)
            assert event is not None
            consumer.take(event)
            if isinstance(event, Opened) and not killed:
                os.kill(worker_pids(pool)[0], signal.SIGKILL)
                killed = True
        assert sum(name.endswith("film.mp4") for what, name in faulty.calls if what == "cat_file") == 1
    np.testing.assert_array_equal(consumer.all(0), expected(carphone))


def test_downloads_go_on_while_videos_are_decoded(carphone: Path, faulty: Faulty) -> None:
    """With one process that is busy (its frames are not taken), the next videos come all the same."""
    refs = [put(f"{n}.mp4", carphone.read_bytes()) for n in range(4)]
    with DecodePool(settings(), workers=1) as pool:
        taken = 0
        while taken < 4 and pool.can_submit():
            pool.submit(DecodeTask(taken, f"film {taken}", refs[taken]))
            taken += 1
        assert taken == 4
        assert isinstance(pool.next_event(60), Opened)
        until = time.monotonic() + 20
        while len({name for what, name in faulty.calls if what == "cat_file"}) < 4:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "code"),
    [(denied, "unreadable"), (reset, "unreadable"), (FileNotFoundError, "not_found")],
    ids=["denied", "reset", "gone"],
)
def test_errors_that_stay_fail_the_video_with_their_class(
    error: type[Exception], code: str, carphone: Path, faulty: Faulty
) -> None:
    ref = put("film.mp4", carphone.read_bytes())
    faulty.faults.append(Fault("cat_file", error=error, times=-1))
    staging = Staging(10**9, 1)
    staging.add(DecodeTask(0, "film", ref))
    problem = collect(staging, 1)[0].error
    staging.close()
    assert problem is not None and problem.code == code and "film" in problem.message


@pytest.mark.parametrize("error", [MemoryError, asyncio.CancelledError, SystemExit], ids=lambda e: e.__name__)
def test_what_no_driver_raises_ends_the_run_and_is_never_silent(
    error: type[BaseException], carphone: Path, faulty: Faulty
) -> None:
    ref = put("film.mp4", carphone.read_bytes())
    faulty.faults.append(Fault("cat_file", error=error, times=-1))  # type: ignore[arg-type]
    with DecodePool(settings(timeout_s=2.0), workers=1) as pool:
        pool.submit(DecodeTask(0, "film", ref))
        for _ in range(2):
            with pytest.raises(RunError, match=f"fetching film broke off: {error.__name__}") as caught:
                assert pool.next_event(10) is None
            assert isinstance(caught.value.__cause__, error)


def test_a_video_for_which_no_thread_can_be_had_is_read_by_ranges(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with DecodePool(settings(), workers=1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            pool.submit(DecodeTask(0, "film", SourceRef("faulty://films/a")))
        event = pool.next_event(60)
        assert isinstance(event, Failed) and event.error.code == "unreadable", "its process has no faulty://"


def test_a_video_larger_than_the_cache_is_read_by_ranges(bikes: Path, faulty: Faulty) -> None:
    """In the decode process there is no `faulty://` in memory, so the driver of the test looks at what it is given."""
    staging = Staging(len(bikes.read_bytes()) - 1, 2)
    ref = put("film.mp4", bikes.read_bytes())
    staging.add(DecodeTask(0, "film", ref))
    assert collect(staging, 1)[0] == Staged(0, ref)
    staging.close()


# the folder --------------------------------------------------------------------------------------------------


def test_the_cache_is_bounded_and_first_come_first_served(faulty: Faulty, tmp_path: Path) -> None:
    staging = Staging(1000, 8)
    refs = [put(f"{n}", bytes([n]) * 400) for n in range(7)]
    for n, ref in enumerate(refs):
        staging.add(DecodeTask(n, f"film {n}", ref, size_bytes=400))
    seen: list[int] = []
    held: dict[int, Staged] = {}
    while len(seen) < 7:
        held |= collect(staging, 1 if len(seen) == 6 else 2 - len(held))
        files = list(tmp_path.glob("dyntok-*/run-*/*"))
        assert sum(file.stat().st_size for file in files) <= 1000
        for token, staged in sorted(held.items()):
            assert content(staged) == bytes([token]) * 400
            seen.append(token)
        for token in list(held):
            staging.release(token)
            del held[token]
    assert sorted(seen) == list(range(7))
    assert sum(abs(token - place) for place, token in enumerate(seen)) <= 4, seen
    staging.close()


def test_one_that_fails_does_not_hold_up_those_behind_it(faulty: Faulty) -> None:
    staging = Staging(1000, 8)
    refs = [put("0", b"a" * 900), SourceRef("faulty://films/none"), put("2", b"b" * 900)]
    for n, ref in enumerate(refs):
        staging.add(DecodeTask(n, f"film {n}", ref))
    found = collect(staging, 2)
    assert found[1].error is not None and found[1].error.code == "not_found"
    assert content(found[0]) == b"a" * 900
    staging.release(0)
    assert content(collect(staging, 1)[2]) == b"b" * 900
    staging.close()


def test_a_full_disk_is_no_error_of_the_video(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    staging = Staging(1000, 1)
    ref = put("a", b"a")
    monkeypatch.setattr("builtins.open", full)
    staging.add(DecodeTask(0, "film", ref))
    assert collect(staging, 1)[0] == Staged(0, ref)
    staging.close()


@pytest.mark.parametrize("what", ["size", "etag"])
def test_another_file_than_the_planned_one(what: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging(1000, 1)
    ref = put("a", b"aaaa")
    info = FaultyFileSystem.info
    monkeypatch.setattr("dyntok.objects.remote._OBJECT_STORES", frozenset({"faulty"}))
    monkeypatch.setattr(FaultyFileSystem, "info", lambda *a, **k: {**info(*a, **k), "ETag": '"now"'})
    size, etag = (5, "now") if what == "size" else (4, "then")
    staging.add(DecodeTask(0, "film", ref, size_bytes=size, etag=etag))
    staging.add(DecodeTask(1, "same", ref, size_bytes=4, etag="now"))
    found = collect(staging, 2)
    assert found[0].error is not None and found[0].error.code == "changed"
    assert found[1].error is None
    staging.close()


def test_a_file_that_changes_while_it_is_read(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_module, "PART_BYTES", 10)
    ref = put("a", b"a" * 25)
    read = FaultyFileSystem.cat_file

    def changing(self: FaultyFileSystem, path: str, *more: object, **also: object) -> bytes:
        data: bytes = read(self, path, *more, **also)
        put("a", b"b" * 26)
        return data

    monkeypatch.setattr(FaultyFileSystem, "cat_file", changing)
    staging = Staging(1000, 1)
    staging.add(DecodeTask(0, "film", ref))
    error = collect(staging, 1)[0].error
    assert isinstance(error, VideoError) and error.code == "changed"
    staging.close()


def test_closing_does_not_wait_for_the_network(faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(FaultyFileSystem, "cat_file", lambda *a, **k: gate.wait(30) and b"")
    monkeypatch.setattr(staging_module, "_CLOSE_S", 0.2)
    staging = Staging(1000, 2)
    for n in range(4):
        staging.add(DecodeTask(n, "film", put(f"{n}", b"abc")))
    time.sleep(0.1)
    began = time.monotonic()
    staging.close()
    staging.close()
    assert time.monotonic() - began < 2
    gate.set()


KILLED = """
import os, signal, sys, tempfile, time
tempfile.tempdir = sys.argv[1]
import fsspec
from dyntok.records import SourceRef
from dyntok.video import DecodeTask
from dyntok.video.staging import Staging
fsspec.filesystem("memory").pipe_file("/films/a", b"x" * 10**6)
staging = Staging(10**7, 1)
staging.add(DecodeTask(0, "film", SourceRef("memory://films/a")))
while not staging.ready():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.stat().st_size for file in tmp_path.glob("dyntok-*/run-*/*")] == [10**6]
    folder = PrivateFolder()
    assert not list(tmp_path.glob("dyntok-*/run-*/*"))
    folder.close()
