"""The outcome of a complete store from its index, where manifest, records and index fit each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dyntok.corpus import FrozenPlan
from dyntok.errors import DamageError
from dyntok.records import FileDigest
from dyntok.run.watch.outcome import Outcome
from dyntok.run.watch.reports import MAX_FAILURES
from dyntok.run.watch.survey import Stamp
from dyntok.store import Manifest, StoreIndex, StoreRoot
from dyntok.store.names import INDEX_FILE, SHARD_FOLDER, record_path, shard_of_record
from dyntok.store.signed import digest_file


@dataclass(frozen=True, slots=True)
class Indexed:
    """Totals, and by shard in the order of the plan: videos done, and bytes."""

    total: Outcome
    done: npt.NDArray[np.int64]
    nbytes: npt.NDArray[np.int64]


def read_index(root: StoreRoot, plan: FrozenPlan, stamps: dict[int, Stamp]) -> Indexed | None:
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


def _sums(plan: FrozenPlan, index: StoreIndex, manifest: Manifest) -> Indexed:
    first, shards = plan.shard_numbers.start, plan.shards
    done = index.numbers("row") >= 0
    shard = index.numbers("shard") - first
    nbytes = np.zeros(shards, np.int64)
    for file in manifest.files:
        number = _shard_of(file)
        if number is not None:
            nbytes[number - first] += file.bytes
    classes = index.column("error_class")
    counted = {v["values"]: v["counts"] for v in classes.value_counts().to_pylist() if v["values"]}
    failed = pc.indices_nonzero(pc.not_equal(classes, "")).to_pylist()
    total = Outcome(
        videos=len(index),
        done=int(done.sum()),
        failed=len(failed),
        shards_done=shards,
        frames=int(index.numbers("frames").sum()),
        patches=int(index.numbers("patches").sum()),
        bytes=int(nbytes.sum()),
        tokens={name: int(index.numbers(f"tokens_{name}").sum()) for name in sorted(index.thresholds)},
        error_classes=dict(sorted(counted.items(), key=lambda item: -item[1])),
        failures=tuple(index.row(position)[1] for position in failed[:MAX_FAILURES]),
    )
    return Indexed(total, np.bincount(shard[done], minlength=shards), nbytes)


def _shard_of(file: FileDigest) -> int | None:
    """The shard that a data file belongs to."""
    folder, _, name = file.path.partition("/")
    if folder != SHARD_FOLDER or shard_of_record(file.path) is not None:
        return None
    digits = name.removeprefix("shard-").partition(".")[0]
    return int(digits) if digits.isdigit() else None
