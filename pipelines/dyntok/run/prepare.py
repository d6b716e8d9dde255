"""Before the first frame: the store, the plan, and whether they agree with what is asked now."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dyntok.config import OPERATIONAL, EncodeConfig
from dyntok.corpus import (
    CorpusItem,
    FrozenPlan,
    PlanDifference,
    append_entries,
    compare_plan,
    fingerprint_like,
    freeze_plan,
    list_inputs,
)
from dyntok.corpus.pooled import ordered_map
from dyntok.errors import InputError, StoreMismatchError, UsageError
from dyntok.records import PlanEntry
from dyntok.run.array import ArrayJob
from dyntok.run.estimates import expected_bytes, expected_frames
from dyntok.run.lock import plan_lock
from dyntok.run.settings import dataset_info, differences
from dyntok.run.tell.observer import RunObserver
from dyntok.run.watch.outcome import failed_rows, open_plan
from dyntok.store import DatasetInfo, StoreRoot, completed_shards
from dyntok.store.claims import claim_bytes, claim_file
from dyntok.store.names import DATASET_FILE, MANIFEST_FILE, PLAN_FILE
from dyntok.store.root import explain_os_error
from dyntok.vision import ModelSpec, describe_model

FINGERPRINT_JOBS = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call of `encode` or `plan` wants of the plan.

    `job`: one job of an array takes the plan as it is, or freezes it with the others. `extend` and `retry_failed`
    append to it, which only a whole run may.
    """

    inputs: Sequence[str]
    config: EncodeConfig
    extend: bool = False
    retry_failed: bool = False
    job: ArrayJob | None = None

    def __post_init__(self) -> None:
        if self.job is not None and (self.extend or self.retry_failed):
            raise UsageError(
                "a job of an array cannot change the plan",
                hint="first `dyntok plan INPUT --out STORE --extend` (or --retry-failed), then start the jobs",
            )


def agree(root: StoreRoot, asked: Asked, observer: RunObserver) -> tuple[ModelSpec, DatasetInfo, FrozenPlan]:
    """The model's description, what `dataset.json` says, and the frozen plan; the caller holds the store's lock.

    Clears its scratch, but nothing in a folder that is no store.

    However many jobs come here at one moment, they leave with the same plan.

    Raises:
        InputError: there are no inputs and no plan.
        StoreMismatchError: the folder holds something else, or a store of other settings or inputs.
    """
    config = asked.config
    _refuse_foreign(root)
    root.clear_scratch()
    spec = describe_model(config.model, space=config.space, revision=config.revision)
    wanted = dataset_info(config, spec)
    if root.exists(PLAN_FILE):
        info = _agreed_dataset(root, wanted)
        plan = open_plan(root)
        return spec, info, plan if asked.job else _kept_or_grown(root, plan, asked, info, observer)
    with plan_lock(root, observer.waiting) if asked.job else nullcontext():
        if not root.exists(PLAN_FILE):
            _freeze(root, asked, wanted, observer)
        return spec, _agreed_dataset(root, wanted), open_plan(root)


def _refuse_foreign(root: StoreRoot) -> None:
    if root.exists(DATASET_FILE):
        return
    others = [path for path in root.list() if not path.startswith((".", "logs/"))]
    # Another job may have begun to freeze the plan while this one looked.
    if others and not root.exists(DATASET_FILE):
        raise StoreMismatchError(
            f"{root.url} is not empty and holds no store (for example {others[0]})",
            hint="give --out a new folder",
        )


def _agreed_dataset(root: StoreRoot, wanted: DatasetInfo) -> DatasetInfo:
    stored = DatasetInfo.load(root)
    if stored.config_hash != wanted.config_hash:
        changed = differences(_content(stored), _content(wanted))
        raise StoreMismatchError(
            f"{root.url} was made with other settings: {'; '.join(changed) or 'an older dyntok'}",
            hint=f"give another --out, or its own settings: `dyntok config show --out {root.url}` prints them",
        )
    return stored


def _content(info: DatasetInfo) -> dict[str, Any]:
    settings = {name: value for name, value in info.config.items() if name not in OPERATIONAL}
    return {**settings, "model fingerprint": info.model.get("fingerprint")}


def _freeze(root: StoreRoot, asked: Asked, info: DatasetInfo, observer: RunObserver) -> None:
    """Make the plan, and put it in place unless another process was first.

    Without a plan and shards there is nothing yet that other settings could spoil, so `dataset.json` is written with
    it. Where the plan was lost and shards are left, theirs stays. On a local store the lock keeps others away; on an
    object store the first `dataset.json` and the first plan count.
    """
    if not asked.inputs:
        raise InputError(f"{root.url} has no plan yet and no inputs were given", hint="give INPUT arguments")
    has_shards = bool(completed_shards(root))
    if has_shards:
        _agreed_dataset(root, info)
    frozen = root.scratch_dir() / f"{uuid.uuid4().hex}.plan"
    try:
        listed = list_inputs(asked.inputs, on_skip=observer.skipped)
        with explain_os_error(root.where(PLAN_FILE), "make"):
            freeze_plan(listed, frozen, on_progress=observer.listing, **packing(asked.config, info))
        if root.is_local:
            if not has_shards:
                info.save(root)
        elif not claim_bytes(root, info.to_bytes(), DATASET_FILE):
            _check_claim(root, info)
        claim_file(root, frozen, PLAN_FILE)
    finally:
        with suppress(OSError):
            frozen.unlink(missing_ok=True)


def _check_claim(root: StoreRoot, info: DatasetInfo) -> None:
    try:
        _agreed_dataset(root, info)
    except StoreMismatchError as error:
        if root.exists(PLAN_FILE):
            raise
        raise StoreMismatchError(
            error.message,
            hint=f"no plan was frozen with them yet: if no other run is starting, remove {root.where(DATASET_FILE)}",
        ) from error


def _kept_or_grown(
    root: StoreRoot, plan: FrozenPlan, asked: Asked, info: DatasetInfo, observer: RunObserver
) -> FrozenPlan:
    """Hold the inputs against the frozen plan, and append to it if asked."""
    config = asked.config
    failed = failed_rows(root) if asked.retry_failed else {}
    new = 0
    if asked.inputs:
        listed = list_inputs(asked.inputs, on_skip=observer.skipped)
        difference = compare_plan(plan, listed, full_fingerprint=config.full_fingerprint, mended=failed)
        check_difference(root, difference, asked.extend)
        new = difference.new_count
    if not new and not failed:
        return plan
    additions: list[Iterable[CorpusItem | PlanEntry]] = []
    if failed:
        additions.append(entry for entry in plan.latest_attempts() if entry.id in failed)
    if new:
        additions.append(list_inputs(asked.inputs))
    appended = root.scratch_dir() / "plan.parquet"
    with explain_os_error(root.where(PLAN_FILE), "make"):
        append_entries(plan, chain(*additions), appended, on_progress=observer.listing, **packing(config, info))
    plan.close()
    # A complete store becomes an incomplete one before its plan grows.
    root.remove(MANIFEST_FILE)
    root.commit_file(appended, PLAN_FILE)
    return open_plan(root)


def check_unchanged(root: StoreRoot, plan: FrozenPlan, shards: Sequence[int]) -> None:
    """Hold the inputs of some shards against their fingerprints; those that cannot be read end as failed, later.

    Raises StoreMismatchError for the first input with another content.
    """
    entries = (entry for shard in shards for entry in plan.shard(shard) if entry.fingerprint is not None)
    for entry, now in ordered_map(_now, entries, jobs=FINGERPRINT_JOBS):
        if now is not None and now != entry.fingerprint:
            raise StoreMismatchError(
                f"{entry.source} is not the input that {root.url} was planned with",
                hint="restore the file, or encode into another --out",
            )


def _now(entry: PlanEntry) -> tuple[PlanEntry, str | None]:
    return entry, fingerprint_like(entry.ref, entry.fingerprint or "")


def check_difference(root: StoreRoot, difference: PlanDifference, extend: bool) -> None:
    """Raise StoreMismatchError unless the listed inputs fit the plan."""
    if difference.changed:
        raise StoreMismatchError(
            f"{difference.changed_count} inputs are not those that {root.url} was planned with, "
            f"for example {difference.changed[0]}",
            hint="restore the files, or encode into another --out; failed videos may be mended with --retry-failed",
        )
    if difference.new_count and not extend:
        raise StoreMismatchError(
            f"{difference.new_count} inputs are not in the plan of {root.url}, for example {difference.new[0]}",
            hint="add --extend to encode them into new shards",
        )


def packing(config: EncodeConfig, info: DatasetInfo) -> dict[str, Any]:
    """How `freeze_plan` cuts shards for these settings."""

    def estimate(item: CorpusItem | PlanEntry) -> int:
        frames = expected_frames(config, item.size_bytes)
        levels = info.level_thresholds
        size = (info.grid.patches, info.token_dim, info.dtype)
        return sum(expected_bytes(frames, *size, threshold) for threshold in levels)

    return {
        "estimate_bytes": estimate,
        "shard_size_bytes": config.shard_size,
        "full_fingerprint": config.full_fingerprint,
    }
