"""What became of every video, from the plan and the completion records, or from the index of a complete store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dyntok.corpus import FrozenPlan
from dyntok.errors import DamageError
from dyntok.records import FileDigest, VideoRow
from dyntok.run.tell.summaries import ShardSummary, latest_failures
from dyntok.run.watch.reports import MAX_FAILURES, StoreTotals
from dyntok.run.watch.survey import Stamp, Survey
from dyntok.store import Manifest, StoreIndex, StoreRoot
from dyntok.store.names import INDEX_FILE, PLAN_FILE, SHARD_FOLDER, record_path, shard_of_record
from dyntok.store.signed import digest_file

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a store holds: totals, and by shard in the order of the plan: whether it is there, its videos, its bytes."""

    total: StoreTotals
    there: npt.NDArray[np.bool_]
    done: Counts
    failed: Counts
    nbytes: Counts


def open_plan(root: StoreRoot) -> FrozenPlan:
    """The frozen plan of a store, memory-mapped where it is local."""
    return FrozenPlan.open(root.seekable(PLAN_FILE))


def failed_rows(root: StoreRoot) -> dict[str, VideoRow]:
    """Videos whose latest attempt failed, by id."""
    return {key: row for key, (_, row) in latest_failures(Survey(root).summaries()).items()}


def outcome(plan: FrozenPlan, summaries: Sequence[ShardSummary], share: Set[int] | None = None) -> StoreTotals:
    """Totals of a whole store; a retried video counts once, as its latest attempt ended.

    With `share`: of these shards, such as a job's. A video that the plan tries again later does not count there.
    """
    if share is None:
        failed = [row for _, row in latest_failures(summaries).values()]
        return _totals(plan.videos, summaries, failed)
    summaries = [summary for summary in summaries if summary.shard in share]
    retried = plan.retried()
    rows = plan.shard_rows()
    videos = sum(int(rows[shard - plan.shard_numbers.start]) for shard in share)
    if retried:
        entries = (entry for shard in share for entry in plan.shard(shard))
        videos -= sum(retried.get(entry.id, 1) != entry.attempt for entry in entries)
    failed = [row for s in summaries for row in s.failed if retried.get(row.id, 1) == row.attempt]
    return _totals(videos, summaries, failed)


def committed_by_shard(plan: FrozenPlan, summaries: Sequence[ShardSummary]) -> Committed:
    """`outcome`, and what each shard has."""
    places = [summary.shard - plan.shard_numbers.start for summary in summaries]

    def spread(values: Sequence[int]) -> Counts:
        spread = np.zeros(plan.shards, np.int64)
        spread[places] = values
        return spread

    return Committed(
        outcome(plan, summaries),
        spread([1] * len(summaries)).astype(bool),
        spread([summary.done for summary in summaries]),
        spread([len(summary.failed) for summary in summaries]),
        spread([summary.nbytes for summary in summaries]),
    )


def _totals(videos: int, summaries: Sequence[ShardSummary], failed: Sequence[VideoRow]) -> StoreTotals:
    tokens: Counter[str] = Counter()
    for summary in summaries:
        tokens.update(summary.tokens)
    return StoreTotals(
        videos=videos,
        done=sum(summary.done for summary in summaries),
        failed=len(failed),
        shards_done=len(summaries),
        frames=sum(summary.frames for summary in summaries),
        patches=sum(summary.patches for summary in summaries),
        bytes=sum(summary.nbytes for summary in summaries),
        tokens=dict(sorted(tokens.items())),
        error_classes=dict(Counter(row.error_class for row in failed).most_common()),
        failures=tuple(failed[:MAX_FAILURES]),
    )


def read_index(root: StoreRoot, plan: FrozenPlan, stamps: dict[int, Stamp]) -> Committed | None:
    """None unless the store is complete: then the records have to tell.

    The manifest must name a record of the size at hand for every shard of the plan, and the index by its digest (by its
    size on an object store). `stamps` are those of the records.
    """
    try:
        manifest = Manifest.load(root)
        if manifest is None or not _is_of(root, plan, stamps, manifest):
            return None
        index = StoreIndex.open(root)
        found = _sums(plan, index, manifest)
        return found if found.total.done + found.total.failed == plan.videos == len(index) else None
    except DamageError:
        return None


def _is_of(root: StoreRoot, plan: FrozenPlan, stamps: dict[int, Stamp], manifest: Manifest) -> bool:
    files = {file.path: file for file in manifest.files}
    if stamps.keys() != set(plan.shard_numbers):
        return False
    for shard, (size, _) in stamps.items():
        named = files.get(record_path(shard))
        if named is None or named.bytes != size:
            return False
    index = files.get(INDEX_FILE)
    if index is None or not root.exists(INDEX_FILE):
        return False
    if root.is_local:
        return digest_file(root, INDEX_FILE) == index
    return root.size(INDEX_FILE) == index.bytes


def _sums(plan: FrozenPlan, index: StoreIndex, manifest: Manifest) -> Committed:
    first, shards = plan.shard_numbers.start, plan.shards
    ended = index.numbers("row") >= 0
    shard = index.numbers("shard") - first
    nbytes = np.zeros(shards, np.int64)
    for file in manifest.files:
        number = _shard_of(file)
        if number is not None:
            nbytes[number - first] += file.bytes
    classes = index.column("error_class")
    counted = {v["values"]: v["counts"] for v in classes.value_counts().to_pylist() if v["values"]}
    failed = pc.indices_nonzero(pc.not_equal(classes, "")).to_pylist()
    total = StoreTotals(
        videos=len(index),
        done=int(ended.sum()),
        failed=len(failed),
        shards_done=shards,
        frames=int(index.numbers("frames").sum()),
        patches=int(index.numbers("patches").sum()),
        bytes=int(nbytes.sum()),
        tokens={name: int(index.numbers(f"tokens_{name}").sum()) for name in sorted(index.thresholds)},
        error_classes=dict(sorted(counted.items(), key=lambda item: -item[1])),
        failures=tuple(index.row(position)[1] for position in failed[:MAX_FAILURES]),
    )
    done = np.bincount(shard[ended], minlength=shards)
    return Committed(total, np.ones(shards, bool), done, plan.shard_rows() - done, nbytes)


def _shard_of(file: FileDigest) -> int | None:
    """The shard that a data file belongs to."""
    folder, _, name = file.path.partition("/")
    if folder != SHARD_FOLDER or shard_of_record(file.path) is not None:
        return None
    digits = name.removeprefix("shard-").partition(".")[0]
    return int(digits) if digits.isdigit() else None
