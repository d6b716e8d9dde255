"""What became of every video, from the plan and the completion records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dyntok.corpus import FrozenPlan
from dyntok.records import VideoRow
from dyntok.run.tell.summaries import ShardSummary, latest_failures
from dyntok.run.watch.reports import MAX_FAILURES
from dyntok.run.watch.survey import Survey
from dyntok.store import StoreRoot
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


def open_plan(root: StoreRoot) -> FrozenPlan:
    """The frozen plan of a store, memory-mapped where it is local."""
    local = root.local_path(PLAN_FILE)
    return FrozenPlan.open(local if local is not None else root.open_read(PLAN_FILE))


def failed_rows(root: StoreRoot) -> dict[str, VideoRow]:
    """Videos whose latest attempt failed, by id."""
    return {key: row for key, (_, row) in latest_failures(Survey(root).summaries()).items()}


def outcome(plan: FrozenPlan, summaries: Sequence[ShardSummary]) -> Outcome:
    """Totals of a whole store; a retried video counts once, as its latest attempt ended."""
    failed = [row for _, row in latest_failures(summaries).values()]
    return _totals(plan.videos, summaries, failed)


def share_outcome(plan: FrozenPlan, shards: Sequence[int], summaries: Sequence[ShardSummary]) -> Outcome:
    """Totals of some shards of a plan, such as a job's. A video that the plan tries again later does not count here."""
    retried = plan.retried()
    rows = plan.shard_rows()
    videos = sum(int(rows[shard - plan.shard_numbers.start]) for shard in shards)
    if retried:
        entries = (entry for shard in shards for entry in plan.shard(shard))
        videos -= sum(retried.get(entry.id, 1) != entry.attempt for entry in entries)
    failed = [row for s in summaries for row in s.failed if retried.get(row.id, 1) == row.attempt]
    return _totals(videos, summaries, failed)


def _totals(videos: int, summaries: Iterable[ShardSummary], failed: Sequence[VideoRow]) -> Outcome:
    total = Outcome(videos=videos, failed=len(failed))
    tokens: Counter[str] = Counter()
    for summary in summaries:
        total.shards_done += 1
        total.bytes += summary.nbytes
        total.done += summary.done
        total.frames += summary.frames
        total.patches += summary.patches
        tokens.update(summary.tokens)
    total.tokens = dict(sorted(tokens.items()))
    total.error_classes = dict(Counter(row.error_class for row in failed).most_common())
    total.failures = tuple(failed[:MAX_FAILURES])
    return total
