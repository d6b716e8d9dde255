"""`plan`: what a run would do, without doing it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from dyntok.config import EncodeConfig
from dyntok.corpus import Plan, freeze_plan, list_inputs
from dyntok.errors import VideoError
from dyntok.run.estimates import expected_bytes, expected_frames, kept_ratio
from dyntok.run.prepare import packing
from dyntok.run.reports import PlanReport
from dyntok.run.settings import dataset_info, decode_settings, resolve_precision
from dyntok.store import threshold_name
from dyntok.video import DecodeSettings, probe_video
from dyntok.vision import describe_model


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
        summary = freeze_plan(list_inputs(inputs), file, **packing(config, info))
        plan = Plan.open(file)
        probed, frames = _frames(plan, config, probe, decode_settings(config, spec))
    patches = frames * info.grid.patches
    size = (info.grid.patches, info.token_dim, info.dtype)
    return PlanReport(
        videos=summary.videos,
        unreadable=summary.unreadable,
        input_bytes=summary.size_bytes,
        shards=summary.shards,
        frames=frames,
        patches=patches,
        probed=probed,
        tokens={threshold_name(t): round(patches * kept_ratio(t)) for t in config.thresholds},
        bytes_by_threshold={threshold_name(t): expected_bytes(frames, *size, t) for t in config.thresholds},
        model=spec.to_json(),
    )


def _frames(plan: Plan, config: EncodeConfig, probe: int, settings: DecodeSettings) -> tuple[int, int]:
    """How many videos were probed, and the frames expected of the whole corpus."""
    if config.frames is not None:
        return 0, plan.videos * config.frames
    counts = []
    for entry in islice(plan.entries(), 0, None, max(1, plan.videos // max(1, probe))):
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
