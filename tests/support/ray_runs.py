"""Runs on Ray for tests, and what their logs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dyntok.records import VideoRow
from dyntok.run import RunObserver, encode
from tests.support.runs import demo_config

SETTINGS: dict[str, Any] = {"decode_workers": 1, "cpus_per_actor": 0.5, "shard_size": "150KB"}


def by_ray(corpus: Path, out: Path, actors: int, observer: RunObserver | None = None, **settings: Any) -> Any:
    config = demo_config(executor="ray", actors=actors, **{**SETTINGS, **settings})
    return encode([str(corpus)], str(out), config, observer=observer)


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    """What the logs of a store say of one kind, in order."""
    lines = [line for log in sorted(out.glob("logs/run-*.jsonl")) for line in log.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event.get("event") == kind]


class Watcher(RunObserver):
    """Counts, and calls `then` once so many videos are written."""

    def __init__(self, after: int = -1, then: Callable[[], None] = lambda: None) -> None:
        self.rows: list[VideoRow] = []
        self.shards: list[int] = []
        self.notes: list[str] = []
        self.frames_seen = 0
        self._after, self._then = after, then

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        self.frames_seen += frames

    def video(self, row: VideoRow) -> None:
        self.rows.append(row)
        if len(self.rows) == self._after:
            self._then()

    def shard(self, shard: int, bytes_written: int) -> None:
        self.shards.append(shard)

    def note(self, text: str) -> None:
        self.notes.append(text)
