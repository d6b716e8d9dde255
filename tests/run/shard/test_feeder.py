"""Threads of the shard function end with it, also where it cannot be started."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dyntok.run import encode
from dyntok.run.shard import feeder
from tests.support.runs import demo_config


def living() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("dyntok-"))


@pytest.mark.parametrize("name", ["device", "collect", "write", "commit", "monitor"])
def test_no_thread_outlives_a_start_that_failed(
    name: str, bikes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may have no more threads to give."""
    start = threading.Thread.start

    def starting(self: threading.Thread) -> None:
        if self.name == f"dyntok-{name}":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", starting)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        encode([str(bikes)], str(tmp_path / "out"), demo_config())
    assert living() == []


def test_no_thread_outlives_buffers_that_cannot_be_had(
    bikes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(*_: Any, **__: Any) -> None:
        raise RuntimeError("no pinned memory is left")

    monkeypatch.setattr(feeder, "torch", type("torch", (), {**vars(torch), "zeros": staticmethod(zeros)}))
    with pytest.raises(RuntimeError, match="no pinned memory"):
        encode([str(bikes)], str(tmp_path / "out"), demo_config())
    assert living() == []
