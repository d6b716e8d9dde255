"""`logs`: what the runs of a store wrote down, and the videos that failed."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from dyntok.errors import StoreError, UsageError
from dyntok.run.tell.runlog import LogFile, log_files
from dyntok.run.tell.summaries import latest_failures
from dyntok.run.watch.outcome import open_plan
from dyntok.run.watch.survey import Survey
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import PLAN_FILE


@dataclass(frozen=True, slots=True)
class FailedVideo:
    """A video whose latest attempt failed. `attempts`: how many there were."""

    id: str
    source: str
    shard: int
    attempts: int
    error_class: str
    error: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def failed_videos(out: str, *, shard: int | None = None) -> list[FailedVideo]:
    """The failed videos of a store, by shard and position, from the completion records.

    With `shard`: those that failed in it, also where a later shard has another attempt.

    Raises:
        StoreError: there is no store.
        UsageError: the plan has no such shard.
    """
    root = _opened(out)
    if shard is not None:
        _ids(root, shard)
        found = [(s.shard, row) for s in Survey(root).summaries() if s.shard == shard for row in s.failed]
    else:
        failures = latest_failures(Survey(root).summaries()).values()
        found = sorted(failures, key=lambda item: (item[0], item[1].position))
    return [FailedVideo(row.id, row.source, number, row.attempt, row.error_class, row.error) for number, row in found]


def run_events(out: str, *, shard: int | None = None) -> Iterator[dict[str, Any]]:
    """What the runs wrote down, by time: `time`, `run`, `job_index` (None for a whole run), `event` and its fields.

    With `shard`: what concerns this shard or a video of it. Lines that are torn or no JSON are left out.

    Raises as `failed_videos`.
    """
    root = _opened(out)
    if shard is None:
        return _merged(root)
    ids, events = _ids(root, shard), _merged(root)
    return (event for event in events if event.get("shard") == shard or event.get("id") in ids)


def _opened(out: str) -> StoreRoot:
    root = StoreRoot.open(out)
    DatasetInfo.load(root)
    return root


def _ids(root: StoreRoot, shard: int) -> set[str]:
    """Videos of a shard. Raises UsageError if there is no such shard."""
    if not root.exists(PLAN_FILE):
        raise UsageError(f"{root.url} has no plan yet, so no shard {shard}")
    with open_plan(root) as plan:
        if shard not in plan.shard_numbers:
            last = plan.shard_numbers.stop - 1
            raise UsageError(f"{root.url} has no shard {shard}", hint=f"its last one is {last}")
        return {entry.id for entry in plan.shard(shard)}


def _merged(root: StoreRoot) -> Iterator[dict[str, Any]]:
    files = sorted((f for f in log_files(root) if f.kind == "events"), key=lambda f: (f.run, f.path))
    runs = [list(group) for _, group in groupby(files, key=lambda f: f.run)]
    return heapq.merge(*(_events(root, parts) for parts in runs), key=lambda event: str(event["time"]))


def _events(root: StoreRoot, parts: list[LogFile]) -> Iterator[dict[str, Any]]:
    for part in parts:
        named = {"run": part.run, "job_index": part.job.index if part.job else None}
        with suppress(StoreError), root.open_read(part.path) as lines:
            for line in lines:
                with suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict) and "time" in event and "event" in event:
                        yield {**event, **named}
