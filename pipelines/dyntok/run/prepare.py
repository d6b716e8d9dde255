"""Before the first frame: the store, the plan, and whether they agree with what is asked now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from dyntok.config import OPERATIONAL, EncodeConfig
from dyntok.corpus import CorpusItem, Plan, PlanDifference, append_entries, freeze_plan, list_inputs
from dyntok.errors import InputError, StoreMismatchError
from dyntok.records import PlanEntry, VideoRow
from dyntok.run.estimates import expected_bytes, expected_frames
from dyntok.run.outcome import failed_rows, open_plan
from dyntok.run.progress import RunObserver
from dyntok.run.settings import dataset_info, differences
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.store.names import DATASET_FILE, MANIFEST_FILE, PLAN_FILE
from dyntok.vision import ModelSpec, describe_model


def agree_on_dataset(root: StoreRoot, config: EncodeConfig) -> tuple[ModelSpec, DatasetInfo]:
    """The model's description, and what `dataset.json` says or will say.

    Without a plan there is nothing yet that other settings could spoil, so `dataset.json` is written with the plan.

    Raises:
        StoreMismatchError: the folder holds something else, or a store of other settings; every setting that
            differs is named.
    """
    if not root.exists(DATASET_FILE):
        others = [path for path in root.list() if not path.startswith((".", "logs/"))]
        if others:
            raise StoreMismatchError(
                f"{root.url} is not empty and holds no store (for example {others[0]})",
                hint="give --out a new folder",
            )
    spec = describe_model(config.model, space=config.space, revision=config.revision)
    info = dataset_info(config, spec)
    if not root.exists(PLAN_FILE):
        return spec, info
    stored = DatasetInfo.load(root)
    if stored.config_hash != info.config_hash:
        changed = differences(_content(stored), _content(info))
        raise StoreMismatchError(
            f"{root.url} was made with other settings: {'; '.join(changed) or 'an older dyntok'}",
            hint="repeat the settings of its dataset.json, or give another --out",
        )
    return spec, stored


def _content(info: DatasetInfo) -> dict[str, Any]:
    settings = {name: value for name, value in info.config.items() if name not in OPERATIONAL}
    return {**settings, "model fingerprint": info.model.get("fingerprint")}


def agree_on_plan(
    root: StoreRoot,
    inputs: Sequence[str],
    config: EncodeConfig,
    info: DatasetInfo,
    *,
    extend: bool,
    retry_failed: bool,
    observer: RunObserver,
) -> Plan:
    """Freeze the plan, or hold the inputs against the one that is frozen and append to it if asked.

    Raises:
        InputError: there are no inputs and no plan.
        StoreMismatchError: inputs changed, or there are new ones without `extend`.
    """
    if not root.exists(PLAN_FILE):
        if not inputs:
            raise InputError(
                f"{root.url} has no plan yet and no inputs were given", hint="give INPUT arguments"
            )
        frozen = root.scratch_dir() / "plan.parquet"
        listed = list_inputs(inputs, on_skip=observer.skipped)
        freeze_plan(listed, frozen, on_progress=_added_up(observer), **packing(config, info))
        info.save(root)
        root.commit_file(frozen, PLAN_FILE)
        return open_plan(root)
    plan = open_plan(root)
    failed = failed_rows(root) if retry_failed else {}
    new = 0
    if inputs:
        listed = list_inputs(inputs, on_skip=observer.skipped)
        difference = plan.compare(listed, full_fingerprint=config.full_fingerprint)
        check_difference(root, difference, extend, failed)
        new = difference.new_count
    if not new and not failed:
        return plan
    additions: list[Iterable[CorpusItem | PlanEntry]] = []
    if failed:
        additions.append(entry for entry in plan.latest_attempts() if entry.id in failed)
    if new:
        additions.append(list_inputs(inputs))
    appended = root.scratch_dir() / "plan.parquet"
    append_entries(
        plan, chain(*additions), appended, on_progress=_added_up(observer), **packing(config, info)
    )
    plan.close()
    # A complete store becomes an incomplete one before its plan grows.
    root.remove(MANIFEST_FILE)
    root.commit_file(appended, PLAN_FILE)
    return open_plan(root)


def check_difference(
    root: StoreRoot, difference: PlanDifference, extend: bool, failed: dict[str, VideoRow]
) -> None:
    """Raise StoreMismatchError unless the listed inputs fit the plan."""
    excused = sum(item.id in failed for item in difference.changed)
    if difference.changed_count > excused:
        example = next((item.id for item in difference.changed if item.id not in failed), "")
        raise StoreMismatchError(
            f"{difference.changed_count - excused} inputs are not those that {root.url} was planned with, "
            f"for example {example}",
            hint="restore the files, or encode into another --out; failed videos may be mended with --retry-failed",
        )
    if difference.new_count and not extend:
        raise StoreMismatchError(
            f"{difference.new_count} inputs are not in the plan of {root.url}, "
            f"for example {difference.new[0].id}",
            hint="add --extend to encode them into new shards",
        )


def _added_up(observer: RunObserver) -> Callable[[int], None]:
    """From increments to the total so far."""
    total = 0

    def more(videos: int) -> None:
        nonlocal total
        total += videos
        observer.listing(total)

    return more


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
