"""What became of every video, from the plan and the completion records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dyntok.corpus import Plan
from dyntok.records import VideoRow
from dyntok.run.reports import MAX_FAILURES
from dyntok.store import CompletionRecord, StoreRoot, iter_records, plan_digest
from dyntok.store.names import PLAN_FILE


@dataclass(slots=True)
class Outcome:
    """Totals over the latest attempt of each video."""

    videos: int = 0
    done: int = 0
    failed: int = 0
    shards_done: int = 0
    frames: int = 0
    patches: int = 0
    bytes: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    error_classes: dict[str, int] = field(default_factory=dict)
    failures: tuple[VideoRow, ...] = ()


def open_plan(root: StoreRoot) -> Plan:
    """The frozen plan of a store, memory-mapped where it is local."""
    local = root.local_path(PLAN_FILE)
    return Plan.open(local if local is not None else root.open_read(PLAN_FILE))


def pending_shards(root: StoreRoot, plan: Plan) -> list[int]:
    """Shards without a valid completion record for their rows of the plan."""
    return [
        shard
        for shard in plan.shard_numbers
        if CompletionRecord.load(root, shard, plan_digest(plan.shard(shard))) is None
    ]


def failed_rows(root: StoreRoot) -> dict[str, VideoRow]:
    """Videos whose latest attempt failed, by id."""
    failed: dict[str, VideoRow] = {}
    for record in iter_records(root):
        _track_failures(failed, record.videos)
    return failed


def outcome(root: StoreRoot, plan: Plan) -> Outcome:
    """Read every completion record; a retried video counts once, as its latest attempt ended."""
    total = Outcome(videos=plan.videos)
    failed: dict[str, VideoRow] = {}
    tokens: Counter[str] = Counter()
    for record in iter_records(root):
        total.shards_done += 1
        total.bytes += sum(file.bytes for file in record.files)
        _track_failures(failed, record.videos)
        for row in record.done:
            total.done += 1
            total.frames += row.frames
            total.patches += row.patches
            tokens.update(row.tokens)
    total.failed = len(failed)
    total.tokens = dict(sorted(tokens.items()))
    total.error_classes = dict(Counter(row.error_class for row in failed.values()).most_common())
    total.failures = tuple(failed.values())[:MAX_FAILURES]
    return total


def _track_failures(failed: dict[str, VideoRow], rows: Iterable[VideoRow]) -> None:
    for row in rows:
        if row.status == "failed":
            failed[row.id] = row
        else:
            failed.pop(row.id, None)
