"""The pool delivers every frame once, in order, whatever happens to its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from dyntok.errors import RunError, VideoError
from dyntok.records import SourceRef
from dyntok.video import (
    DecodeEvent,
    DecodeLimits,
    DecodePool,
    DecodeSettings,
    DecodeTask,
    Failed,
    Finished,
    Frames,
    Opened,
    Sampling,
    decode_frames,
)
from tests.video.conftest import Clip

EVERY = Sampling(None, fps=1e4)
SIZE = 48


def settings(sampling: Sampling = EVERY, **limits: float) -> DecodeSettings:
    return DecodeSettings(sampling, DecodeLimits(**limits), SIZE, SIZE)  # type: ignore[arg-type]


def expected(path: Path, sampling: Sampling = EVERY) -> npt.NDArray[np.uint8]:
    with decode_frames(SourceRef(str(path)), settings(sampling)) as video:
        return np.stack(list(video.images()))


def worker_pids(pool: DecodePool) -> list[int]:
    """Process ids of the decode processes that there are now."""
    return [worker.pid for worker in pool._workers]


class Consumer:
    """Takes events until the pool is empty, and checks that each video's come in order."""

    def __init__(self, pool: DecodePool) -> None:
        self.pool = pool
        self.images: dict[int, list[npt.NDArray[np.uint8]]] = {}
        self.opened: dict[int, Opened] = {}
        self.ended: dict[int, Finished | Failed] = {}

    def run(self, paths: list[Path], each: Callable[[DecodeEvent], None] = lambda _: None) -> None:
        waiting = [DecodeTask(n, path.name, SourceRef(str(path))) for n, path in enumerate(paths)][::-1]
        while waiting or self.pool.in_flight:
            while waiting and self.pool.can_submit():
                self.pool.submit(waiting.pop())
            event = self.pool.next_event(60)
            assert event is not None, "the pool is stuck"
            self.take(event)
            each(event)

    def take(self, event: DecodeEvent) -> None:
        token = event.task.token
        assert token not in self.ended
        if isinstance(event, Opened):
            assert token not in self.opened
            self.opened[token] = event
        elif isinstance(event, Frames):
            assert event.start == sum(map(len, self.images.get(token, []))), "out of order"
            assert token in self.opened
            self.images.setdefault(token, []).append(event.images.copy())
        else:
            self.ended[token] = event

    def all(self, token: int) -> npt.NDArray[np.uint8]:
        return np.concatenate(self.images[token])

    def error(self, token: int) -> VideoError:
        ended = self.ended[token]
        assert isinstance(ended, Failed)
        return ended.error


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(settings(), workers=2, recycle_after=3, queue_ahead=1) as shared:
        yield shared


def test_videos_come_out_whole_and_in_order(pool: DecodePool, clip: Clip, bikes: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    names = ("bframes.mp4", "uneven.mkv", "mpeg4.avi", "one_frame.mp4", "cut.mp4", "anim.gif", "vp9.webm")
    paths = [bikes, *(clip(name) for name in names), text]
    consumer = Consumer(pool)
    consumer.run(paths)
    for token, path in enumerate(paths[:-1]):
        assert isinstance(consumer.ended[token], Finished)
        np.testing.assert_array_equal(consumer.all(token), expected(path), path.name)
        opened = consumer.opened[token]
        assert len(opened.frames) == len(consumer.all(token)) == opened.info.frames_total
    assert consumer.error(len(names) + 1).code == "not_a_video"
    assert consumer.ended[0].stages.keys() == {"index", "decode", "resize"}  # type: ignore[union-attr]


def test_a_killed_process_goes_unnoticed(pool: DecodePool, bikes: Path) -> None:
    killed = []

    def kill_once(event: DecodeEvent) -> None:
        if isinstance(event, Frames) and event.start > 20 and not killed:
            killed.extend(worker_pids(pool))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    consumer = Consumer(pool)
    consumer.run([bikes], kill_once)
    assert killed
    assert isinstance(consumer.ended[0], Finished)
    np.testing.assert_array_equal(consumer.all(0), expected(bikes))


class Killer:
    """Kills decode processes, or their parent, whenever frames come, up to some times."""

    def __init__(self, pool: DecodePool, times: int, *, parent: bool = False) -> None:
        self.pool, self.left, self.parent = pool, times, parent

    def __call__(self, event: DecodeEvent) -> None:
        if isinstance(event, Frames) and self.left:
            self.left -= 1
            for pid in worker_pids(self.pool):
                with suppress(ProcessLookupError, psutil.NoSuchProcess):
                    os.kill(psutil.Process(pid).ppid() if self.parent else pid, signal.SIGKILL)


@pytest.mark.parametrize(("times", "parent"), [(4, False), (2, True)])
def test_kills_from_outside_do_not_cost_a_video(pool: DecodePool, bikes: Path, times: int, parent: bool) -> None:
    killer = Killer(pool, times, parent=parent)
    consumer = Consumer(pool)
    consumer.run([bikes], killer)
    assert not killer.left
    assert isinstance(consumer.ended[0], Finished)
    np.testing.assert_array_equal(consumer.all(0), expected(bikes))


def test_a_video_whose_process_is_killed_every_time_ends(pool: DecodePool, bikes: Path) -> None:
    consumer = Consumer(pool)
    consumer.run([bikes], Killer(pool, 100))
    failed = consumer.ended[0]
    assert isinstance(failed, Failed)
    assert (failed.attempts, failed.error.message) == (5, "bikes.mp4: the decode process died (SIGKILL)")


def test_the_parent_of_the_processes_may_be_killed_while_it_has_none(carphone: Path) -> None:
    with DecodePool(settings(Sampling(2)), workers=1) as pool:
        assert pool._zygote is not None
        pool._zygote._process.kill()
        consumer = Consumer(pool)
        consumer.run([carphone])
        assert isinstance(consumer.ended[0], Finished)


def test_a_video_that_kills_its_process_fails_after_its_attempts(pool: DecodePool, bikes: Path) -> None:
    def kill(event: DecodeEvent) -> None:
        if isinstance(event, Frames):
            for pid in worker_pids(pool):
                os.kill(pid, signal.SIGSEGV)

    consumer = Consumer(pool)
    consumer.run([bikes], kill)
    failed = consumer.ended[0]
    assert isinstance(failed, Failed)
    assert failed.attempts == 2
    assert failed.error.code == "worker_died"
    assert failed.error.message == "bikes.mp4: the decode process died (SIGSEGV)"


def test_a_file_that_changes_between_attempts_is_reported(
    pool: DecodePool, clip: Clip, bikes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(bikes.read_bytes())

    def change(event: DecodeEvent) -> None:
        if isinstance(event, Frames) and event.start == 0:
            other = tmp_path / "other.mp4"
            other.write_bytes(clip("uneven.mp4").read_bytes())
            other.replace(path)
            for pid in worker_pids(pool):
                os.kill(pid, signal.SIGKILL)

    consumer = Consumer(pool)
    consumer.run([path], change)
    assert consumer.error(0).code == "changed"


def test_unreadable_files_are_tried_again_and_missing_ones_are_not(pool: DecodePool, tmp_path: Path) -> None:
    consumer = Consumer(pool)
    consumer.run([tmp_path, tmp_path / "missing.mp4"])
    assert [(consumer.error(t).code, consumer.ended[t].attempts) for t in (0, 1)] == [  # type: ignore[union-attr]
        ("unreadable", 2),
        ("not_found", 1),
    ]


def test_processes_are_replaced_after_some_videos(pool: DecodePool, clip: Clip) -> None:
    seen: set[int] = set()
    Consumer(pool).run([clip("one_frame.mp4")] * 14, lambda _: seen.update(worker_pids(pool)))
    assert len(seen) >= 4
    assert len(worker_pids(pool)) <= 2


def test_waiting_without_work_is_an_error(pool: DecodePool) -> None:
    with pytest.raises(RunError, match="no video"):
        pool.next_event(0)


def test_a_hanging_process_is_killed_and_waiting_is_free(carphone: Path) -> None:
    """The first video waits for its consumer longer than its limit; the second one's process stops dead."""
    with DecodePool(settings(timeout_s=2.0), workers=1) as pool:
        slow = Consumer(pool)
        slow.run([carphone], lambda event: time.sleep(2.5 if isinstance(event, Frames) and event.start == 0 else 0))
        assert isinstance(slow.ended[0], Finished)

        def stop(event: DecodeEvent) -> None:
            if isinstance(event, Frames):
                os.kill(worker_pids(pool)[0], signal.SIGSTOP)

        hanging = Consumer(pool)
        since = time.monotonic()
        hanging.run([carphone], stop)
        assert time.monotonic() - since < 20
        assert hanging.error(0).code == "timeout"
        assert hanging.error(0).message == "carphone_pristine.mp4: decoding took longer than 2 s"
        after = Consumer(pool)
        after.run([carphone])
        np.testing.assert_array_equal(after.all(0), expected(carphone))


def test_no_event_within_the_timeout_is_none(pool: DecodePool, bikes: Path) -> None:
    pool.submit(DecodeTask(0, "bikes.mp4", SourceRef(str(bikes))))
    for pid in worker_pids(pool):
        os.kill(pid, signal.SIGSTOP)
    while pool.next_event(0.2) is not None:
        pass
    for pid in worker_pids(pool):
        os.kill(pid, signal.SIGCONT)
    while pool.in_flight:
        assert pool.next_event(60) is not None


def test_memory_is_limited_and_closing_leaves_nothing_behind(clip_folder: Path) -> None:
    small, large = clip_folder / "carphone_pristine.mp4", clip_folder / "bigbuckbunny.mp4"
    with DecodePool(settings(memory_bytes=6 << 20), workers=1) as pool:
        consumer = Consumer(pool)
        consumer.run([large, small])
        assert consumer.error(0).code == "memory"
        assert consumer.error(0).message == "bigbuckbunny.mp4 needs more memory than the limit"
        assert isinstance(consumer.ended[1], Finished)
        pool.submit(DecodeTask(2, "carphone", SourceRef(str(small))))
        pids = worker_pids(pool)
        assert len(pids) == 1
        pool.close()
        wait_until_gone(pids)
    with pytest.raises(RunError, match="closed"):
        pool.submit(DecodeTask(3, "late", SourceRef("late")))


SCRIPT = """
import sys, time
from dyntok.records import SourceRef
from dyntok.video import *
pool = DecodePool(DecodeSettings(Sampling(None, fps=1e4), DecodeLimits(), 48, 48), workers=2)
for token in range(2):
    pool.submit(DecodeTask(token, "film", SourceRef(sys.argv[1])))
while not isinstance(pool.next_event(), Frames):
    pass
print(*(worker.pid for worker in pool._workers), flush=True)
time.sleep(600)
"""


def test_processes_do_not_outlive_their_parent(bikes: Path) -> None:
    """The script has no guard for `__main__`; one process waits for slots, one is stopped as if it hung."""
    script = subprocess.Popen([sys.executable, "-c", SCRIPT, str(bikes)], stdout=subprocess.PIPE, text=True)
    with script:
        assert script.stdout is not None
        pids = [int(word) for word in script.stdout.readline().split()]
        zygote = psutil.Process(pids[0]).ppid()
        assert psutil.Process(zygote).ppid() == script.pid
        os.kill(pids[1], signal.SIGSTOP)
        script.kill()
    wait_until_gone([*pids, zygote])


def wait_until_gone(pids: list[int]) -> None:
    until = time.monotonic() + 20
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < until, f"still there: {alive}"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_watchdog_ends_a_process_that_nobody_watches(bikes: Path, tmp_path: Path) -> None:
    """Decoding takes longer than the limit and its grace, and the pool is not looked at meanwhile."""
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as out:
        copy = None
        for number in range(120):
            with av.open(str(bikes)) as source:
                stream = source.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.size:
                        packet.pts += number * 128000  # type: ignore[operator]
                        packet.dts += number * 128000  # type: ignore[operator]
                        packet.is_keyframe = number == 0 and packet.is_keyframe
                        packet.stream = copy
                        out.mux(packet)
    with DecodePool(settings(Sampling(2), timeout_s=0.5), workers=1) as pool:
        pool.submit(DecodeTask(0, "long", SourceRef(str(path))))
        (pid,) = worker_pids(pool)
        wait_until_gone([pid])
        consumer = Consumer(pool)
        while pool.in_flight:
            event = pool.next_event(10)
            assert event is not None
            consumer.take(event)
        assert consumer.error(0).code == "timeout"
