"""The attempts of shards and videos that lost their process. Kept under `logs/`, so that it outlives every process.

One small file for each shard that ever was in trouble; a store without trouble has none. Nothing here is part of the
result: what a ledger decides (a video is given up) goes into the shard's record in words that do not depend on it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from dyntok.errors import StoreError
from dyntok.run.executors.deaths.marks import Place
from dyntok.run.shard.messages import ShardWork
from dyntok.store import StoreRoot, plan_digest
from dyntok.store.names import LOG_FOLDER, shard_name

ATTEMPT_FOLDER = f"{LOG_FOLDER}/attempts"
_FILE = re.compile(rf"{ATTEMPT_FOLDER}/shard-([0-9]{{6,9}})\.json")
_MAX_BYTES = 2**24
# Before, a video was also blamed for errors that no process died of.
_VERSION = 2


@dataclass(slots=True)
class ShardAttempts:
    """What is known of one shard.

    `plan_digest` says of which plan. `lost` counts the processes that died with it; `alone` counts, by position, how
    often a video killed a process in which nothing else was; `quarantined` are the positions that are given up.
    """

    plan_digest: str
    lost: int = 0
    alone: dict[int, int] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)

    def to_bytes(self) -> bytes:
        content = {
            "version": _VERSION,
            "plan_digest": self.plan_digest,
            "lost": self.lost,
            "alone": {str(position): count for position, count in sorted(self.alone.items())},
            "quarantined": sorted(self.quarantined),
        }
        return json.dumps(content, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, content: Any) -> ShardAttempts:
        """Raises KeyError, TypeError, ValueError or AttributeError for anything else than what `to_bytes` wrote.

        Whom an earlier version blames is under suspicion, and tried alone once more.
        """
        known = cls(
            plan_digest=str(content["plan_digest"]),
            lost=int(content["lost"]),
            alone={int(position): int(count) for position, count in content["alone"].items()},
            quarantined={int(position) for position in content["quarantined"]},
        )
        if content.get("version") != _VERSION:
            known.alone, known.quarantined = dict.fromkeys(known.alone.keys() | known.quarantined, 0), set()
        return known


class Ledger:
    """Reads what earlier runs left, and writes each change at once. Used by one thread, for shards of one writer."""

    def __init__(self, root: StoreRoot, max_attempts: int) -> None:
        self._root, self._max_attempts = root, max_attempts
        self._shards: dict[int, ShardAttempts] = {}
        for path in root.list(ATTEMPT_FOLDER):
            match = _FILE.fullmatch(path)
            if match is not None and (found := self._read(path)) is not None:
                self._shards[int(match[1])] = found

    def _read(self, path: str) -> ShardAttempts | None:
        try:
            return ShardAttempts.from_json(json.loads(self._root.read_bytes(path, _MAX_BYTES)))
        except (KeyError, TypeError, ValueError, AttributeError, StoreError):
            return None  # no more than a memory of attempts is lost

    def __contains__(self, shard: int) -> bool:
        """Whether the shard ever was in trouble."""
        return shard in self._shards

    def applied(self, work: ShardWork) -> ShardWork:
        """The work without the videos that are given up."""
        if work.shard not in self._shards:
            return work
        known = self.of(work.shard, plan_digest(work.entries))
        return replace(work, quarantined=frozenset(known.quarantined))

    def of(self, shard: int, digest: str) -> ShardAttempts:
        """What is known of a shard of this plan; what is known of another plan's shard is forgotten."""
        known = self._shards.get(shard)
        if known is None or known.plan_digest != digest:
            known = self._shards[shard] = ShardAttempts(digest)
        return known

    def lost(self, shard: int, digest: str) -> None:
        """A process died in which the shard was begun."""
        self.of(shard, digest).lost += 1
        self._save(shard)

    def survived(self, place: Place) -> None:
        """The video was encoded alone: it is innocent."""
        if self._shards[place[0]].alone.pop(place[1], None) is not None:
            self._save(place[0])

    def died_alone(self, place: Place) -> bool:
        """The video killed a process in which nothing else was. Whether that was once too often."""
        shard, position = place
        known = self._shards[shard]
        known.alone[position] = known.alone.get(position, 0) + 1
        if known.alone[position] >= self._max_attempts:
            known.quarantined.add(position)
            del known.alone[position]
        self._save(shard)
        return position in known.quarantined

    def _save(self, shard: int) -> None:
        self._root.write_atomic(f"{ATTEMPT_FOLDER}/{shard_name(shard)}.json", self._shards[shard].to_bytes())
