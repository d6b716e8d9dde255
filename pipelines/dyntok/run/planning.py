"""`plan`: what a run would do, without doing it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from dyntok.config import EncodeConfig
from dyntok.corpus import FrozenPlan, freeze_plan, list_inputs
from dyntok.errors import VideoError
from dyntok.run.estimates import expected_bytes, expected_frames, kept_ratio
from dyntok.run.lock import store_lock
from dyntok.run.precision import resolve_precision
from dyntok.run.prepare import Asked, agree, packing
from dyntok.run.settings import dataset_info, decode_settings
from dyntok.run.tell.observer import RunObserver
from dyntok.run.watch.reports import PlanReport
from dyntok.store import DatasetInfo, StoreRoot, threshold_name
from dyntok.video import DecodeSettings, probe_video
from dyntok.vision import ModelSpec, describe_model


def estimate(inputs: Sequence[str], config: EncodeConfig, *, probe: int = 16) -> PlanReport:
    """List the inputs, cut them into shards, and say how many frames, tokens and bytes to expect.

    With `fps`, the frame indexes of up to `probe` videos, spread over the corpus, are read to learn its durations.

    Raises as `encode` does for inputs and model; nothing is written.
    """
    config = resolve_precision(config)
    spec = describe_model(config.model, space=config.space, revision=config.revision)
    info = dataset_info(config, spec)
    with tempfile.TemporaryDirectory(prefix="dyntok-plan-") as folder:
        file = Path(folder) / "plan.parquet"
        freeze_plan(list_inputs(inputs), file, **packing(config, info))
        with FrozenPlan.open(file) as plan:
            return _report(plan, config, spec, info, probe)


def freeze(
    inputs: Sequence[str],
    out: str,
    config: EncodeConfig,
    *,
    extend: bool = False,
    retry_failed: bool = False,
    probe: int = 16,
    observer: RunObserver | None = None,
) -> PlanReport:
    """Freeze the plan of the store at `out`, or append to it as `encode` would, and encode nothing: jobs of an array
    find it there.

    The report is of the whole plan. Raises as `encode` does for inputs, model and store.
    """
    asked = Asked(inputs, resolve_precision(config), extend=extend, retry_failed=retry_failed)
    root = StoreRoot.open(out, create=True)
    with store_lock(root):
        spec, info, plan = agree(root, asked, observer or RunObserver())
        with plan:
            return _report(plan, asked.config, spec, info, probe)


def _report(plan: FrozenPlan, config: EncodeConfig, spec: ModelSpec, info: DatasetInfo, probe: int) -> PlanReport:
    probed, frames = _frames(plan, config, probe, decode_settings(config, spec))
    patches = frames * info.grid.patches
    size = (info.grid.patches, info.token_dim, info.dtype)
    input_bytes = unreadable = 0
    for batch in plan.column_batches("size_bytes", "fingerprint", "attempt"):
        first = batch.filter(pc.equal(batch["attempt"], 1))
        input_bytes += pc.sum(first["size_bytes"], min_count=0).as_py()
        unreadable += first["fingerprint"].null_count
    return PlanReport(
        videos=plan.videos,
        unreadable=unreadable,
        input_bytes=input_bytes,
        shards=plan.shards,
        frames=frames,
        patches=patches,
        probed=probed,
        tokens={threshold_name(t): round(patches * kept_ratio(t)) for t in config.thresholds},
        bytes_by_threshold={threshold_name(t): expected_bytes(frames, *size, t) for t in config.thresholds},
        model=spec.to_json(),
    )


def _frames(plan: FrozenPlan, config: EncodeConfig, probe: int, settings: DecodeSettings) -> tuple[int, int]:
    """How many videos were probed, and the frames expected of the whole corpus."""
    if config.frames is not None:
        return 0, plan.videos * config.frames
    counts = []
    number = min(probe, plan.rows)
    for entry in (plan.entry(i * plan.rows // number) for i in range(number)):
        if entry.size_bytes is None:
            continue
        try:
            frames, _ = probe_video(entry.ref, settings.sampling, settings.limits)
        except VideoError:
            continue
        counts.append(len(frames))
    if counts:
        return len(counts), round(sum(counts) / len(counts) * plan.videos)
    return 0, sum(expected_frames(config, entry.size_bytes) for entry in plan.entries())
