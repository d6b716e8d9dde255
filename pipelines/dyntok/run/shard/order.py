"""Brings videos, which finish in any order, into the order of the plan, shard by shard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from dyntok.run.shard.messages import ReadyVideo, ShardWork


@dataclass(slots=True)
class ShardProgress:
    """How far one shard got: videos wait in `ready` until their position is next."""

    work: ShardWork
    next_position: int = 0
    ready: dict[int, ReadyVideo] = field(default_factory=dict)

    def push(self, video: ReadyVideo) -> Iterator[ReadyVideo]:
        """Take one video and give those that may be written now, in order."""
        self.ready[video.entry.position] = video
        while self.next_position in self.ready:
            yield self.ready.pop(self.next_position)
            self.next_position += 1

    @property
    def complete(self) -> bool:
        return self.next_position == len(self.work.entries)


class Lookahead:
    """How far decoding may run ahead of writing, in shards that are begun and not committed.

    Without a bound, one long video would let every later one pile up behind it.
    """

    def __init__(self, shards_open: int) -> None:
        self._limit = shards_open
        self._open = 0
        self._changed = threading.Condition()

    def try_open(self) -> bool:
        """Whether one more shard may be begun; counts it if so."""
        with self._changed:
            if self._open >= self._limit:
                return False
            self._open += 1
            return True

    def committed(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until a shard is committed, or for `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)
