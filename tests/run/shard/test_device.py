"""The device is supplied: batches overlap, everything keeps its place, and its time is told truly."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dyntok.records import Grid
from dyntok.run.shard.channels import Channel, RunState, start_thread
from dyntok.run.shard.collect import CollectLoop
from dyntok.run.shard.device import DeviceLoop, DeviceTime
from dyntok.run.shard.messages import EncodedBatch, FrameBatch, VideoEnded
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.testing import SimulatedEncoder
from dyntok.vision import DoneWork, EncodedFrames


class Recorded:
    """Work that is done when the test says so."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.done = threading.Event()
        self.seconds = seconds

    @property
    def is_done(self) -> bool:
        return self.done.is_set()

    def wait(self) -> None:
        assert self.done.wait(10)


class HandedOver:
    """An encoder whose work lies open."""

    device = torch.device("cpu")

    def __init__(self, batches_at_once: int, *, fixed_batches: bool, done: bool = False) -> None:
        self.batches_at_once, self.fixed_batches, self.done = batches_at_once, fixed_batches, done
        self.work: list[Recorded] = []
        self.frames: list[int] = []

    def encode(self, images: torch.Tensor) -> EncodedFrames:
        self.frames.append(len(images))
        self.work.append(Recorded())
        if self.done:
            self.work[-1].done.set()
        return EncodedFrames(torch.zeros(1), torch.zeros(1), self.work[-1])


class Loop:
    """A device thread between two channels."""

    def __init__(self, encoder: Any) -> None:
        self.state, self.clock = RunState(), StageClock()
        self.inbox: Channel[Any] = Channel(self.state, 20)
        self.outbox: Channel[Any] = Channel(self.state, 20)
        job: Any = SimpleNamespace(encoder=encoder, clock=self.clock, observer=RunObserver())
        self.thread = start_thread("device", self.state, DeviceLoop(job, self.inbox, self.outbox).run)

    def close(self) -> None:
        self.state.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def batch(frames: int) -> FrameBatch:
    return FrameBatch(torch.zeros(4, 2, 2, 3, dtype=torch.uint8), frames)


def eventually(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_the_next_batch_is_there_before_the_last_is_done_and_no_more(at_once: int) -> None:
    encoder = HandedOver(at_once, fixed_batches=True)
    loop = Loop(encoder)
    try:
        for _ in range(5):
            loop.inbox.put(batch(4))
        for done in range(5):
            expected = min(5, done + at_once)
            eventually(lambda expected=expected: len(encoder.work) == expected)
            time.sleep(0.05)
            assert len(encoder.work) == expected
            encoder.work[done].done.set()
    finally:
        loop.close()
    assert loop.state.error is None


def test_what_is_between_batches_stays_between_them() -> None:
    loop = Loop(HandedOver(9, fixed_batches=True, done=True))
    batches = [batch(4), batch(3), batch(2)]
    sent = [
        batches[0],
        VideoEnded(1),
        batches[1],
        VideoEnded(2),
        VideoEnded(3),
        batches[2],
        VideoEnded(4),
        None,
    ]
    for item in sent:
        loop.inbox.put(item)
    got = [loop.outbox.get() for _ in sent]
    loop.close()
    assert [item.batch if isinstance(item, EncodedBatch) else item for item in got] == sent


@pytest.mark.parametrize(("fixed", "expected"), [(True, [4, 4]), (False, [4, 1])])
def test_padding_goes_to_devices_that_need_it(fixed: bool, expected: list[int]) -> None:
    encoder = HandedOver(9, fixed_batches=fixed, done=True)
    loop = Loop(encoder)
    for item in (batch(4), batch(1), None):
        loop.inbox.put(item)
    eventually(lambda: not loop.thread.is_alive())
    assert encoder.frames == expected


def test_an_error_of_the_device_ends_the_run() -> None:
    class Broken(HandedOver):
        def encode(self, images: torch.Tensor) -> EncodedFrames:
            raise RuntimeError("device-side assert triggered")

    loop = Loop(Broken(2, fixed_batches=True))
    loop.inbox.put(batch(1))
    eventually(lambda: isinstance(loop.state.error, RuntimeError))
    loop.close()


def test_a_buffer_is_given_back_once_its_frames_are_merged(tmp_path: Path) -> None:
    """Neither while the device may still copy from it, nor so early that merged batches pile up."""
    state = RunState()
    inbox: Channel[Any] = Channel(state, 9)
    free: Channel[Any] = Channel(state, 9)
    info = SimpleNamespace(level_thresholds=(0.5,), dtype="float32", grid=Grid(1, 2))
    job: Any = SimpleNamespace(
        encoder=HandedOver(2, fixed_batches=True), clock=StageClock(), observer=RunObserver(), info=info
    )
    thread = start_thread("collect", state, CollectLoop(job, inbox, free, Channel(state, 9)).run)
    work = Recorded()
    inbox.put(EncodedBatch(batch(1), EncodedFrames(torch.ones(4, 1, 2, 3), torch.ones(4, 1, 2, 3), work)))
    time.sleep(0.1)
    assert free.waiting(FrameBatch) == 0
    work.done.set()
    eventually(lambda: free.waiting(FrameBatch) == 1)
    inbox.put(None)
    thread.join(10)
    assert state.error is None
    assert free.get().frames == 0


def test_device_time_is_put_together_from_what_each_batch_took() -> None:
    device = DeviceTime()
    assert device.busy_until(5.0) <= 0.0, "nothing yet"
    device.took(10.0, DoneWork(2.0))
    assert device.busy_until(11.0) == 11.0
    assert device.busy_until(15.0) == 12.0
    first, second = Recorded(3.0), Recorded(1.0)
    device.took(20.0, first)
    device.took(21.0, second)
    assert device.busy_until(90.0) == 90.0, "it runs"
    first.done.set()
    second.done.set()
    # The second had to wait for the first.
    assert device.busy_until(90.0) == 24.0


def test_a_device_waits_for_no_more_batches_than_it_must() -> None:
    device = DeviceTime()
    running = [Recorded(1.0), Recorded(1.0)]
    for work in running:
        device.took(0.0, work)
    device.leave_at_most(2)
    running[0].done.set()
    device.leave_at_most(1)
    assert device.busy_until(9.0) == 9.0
    running[1].done.set()
    device.leave_at_most(0)
    assert device.busy_until(9.0) == 2.0


@pytest.mark.parametrize(("pause_s", "waits"), [(0.0, False), (0.15, True)])
def test_the_clock_tells_work_from_waiting(pause_s: float, waits: bool) -> None:
    """Whether the device thread waits for frames says little: the device may have some still."""
    encoder = SimulatedEncoder(0.05, grid=Grid(1, 2), feature_dim=2, token_dim=2)
    loop = Loop(encoder)
    for _ in range(8):
        loop.inbox.put(batch(4))
        time.sleep(pause_s)
    loop.inbox.put(None)
    eventually(lambda: not loop.thread.is_alive())
    seconds = loop.clock.seconds()
    if waits:
        assert seconds["wait"] > 0.5
        assert 0.35 < seconds["model"] < 0.6
    else:
        assert seconds["wait"] < 0.1
        assert 0.35 < seconds["model"] < 0.6


def test_a_simulated_device_takes_its_time_and_no_cpu() -> None:
    encoder = SimulatedEncoder(0.1, grid=Grid(2, 3), feature_dim=4, token_dim=5)
    images = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)
    encoder.encode(images).work.wait()
    began, cpu = time.perf_counter(), time.process_time()
    first, second = encoder.encode(images), encoder.encode(images)
    assert time.perf_counter() - began < 0.05
    assert not first.work.is_done
    second.work.wait()
    assert 0.2 <= time.perf_counter() - began < 0.4
    assert time.process_time() - cpu < 0.1
    assert first.work.is_done
    assert (first.features.shape, first.features.dtype) == ((6, 2, 3, 4), torch.float32)
    assert (first.tokens.shape, first.tokens.dtype) == ((6, 2, 3, 5), torch.bfloat16)
    assert encoder.batches == 3
    assert encoder.busy_seconds == pytest.approx(0.3)


def test_a_simulated_device_knows_how_busy_it_was() -> None:
    encoder = SimulatedEncoder(0.05, grid=Grid(1, 2), feature_dim=2, token_dim=2)
    assert encoder.busy_share == 0.0
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    encoder.encode(images)
    assert encoder.encode(images).work.seconds == 0.05
    assert encoder.busy_share == pytest.approx(1.0, abs=0.01)
    time.sleep(0.2)
    encoder.encode(images)
    assert 0.5 < encoder.busy_share < 0.65
