"""A decode process and its parent by themselves, without a pool."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from dyntok.records import SourceRef
from dyntok.video.ring import FrameRing
from dyntok.video.zygote import _MESSAGE, Zygote
from tests.video.test_pool import SIZE, settings


@pytest.mark.parametrize("when", ["waiting for slots", "sending"])
def test_a_process_whose_pool_has_gone_ends_quietly(when: str, bikes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A pool that closes hangs up first, and has the processes killed then: some are faster."""
    zygote = Zygote(settings())
    ring = FrameRing.create(SIZE, SIZE, settings().limits.max_sampled_frames)
    ours, theirs = socket.socketpair()
    with theirs:
        pid = zygote.spawn(theirs.fileno(), ring.descriptor)
    ring.close_descriptor()
    process = psutil.Process(pid)
    if when == "sending":
        process.suspend()
    with Connection(ours.detach()) as pool:
        task = {"kind": "task", "id": "bikes", "ref": asdict(SourceRef(str(bikes))), "start": 0}
        pool.send_bytes(json.dumps(task).encode())
        free = ring.slots if when == "waiting for slots" else 0
        while free:
            message = json.loads(pool.recv_bytes())
            free -= message["count"] if message["kind"] == "frames" else 0
    process.resume()
    until = time.monotonic() + 20
    while process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it does not notice"
        time.sleep(0.01)
    status = zygote.kill(pid)
    zygote.close()
    assert (status, capfd.readouterr().err) == (0, "")


def test_so_does_their_parent_when_an_answer_was_not_taken(capfd: pytest.CaptureFixture[str]) -> None:
    """As when the pool was interrupted while it waited."""
    zygote = Zygote(settings())
    zygote._control.sendall(_MESSAGE.pack(b"kill", 0))
    assert zygote._control.recv(1, socket.MSG_PEEK)
    zygote.close()
    assert not capfd.readouterr().err
