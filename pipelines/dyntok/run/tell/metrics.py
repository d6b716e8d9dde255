"""A run's counts in the text format of Prometheus, for the textfile collector of its node exporter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dyntok.errors import VIDEO_ERROR_CODES
from dyntok.run.tell.rates import DECODE, DEVICE, WRITE, busy_shares
from dyntok.run.tell.snapshot import RUNNING, RunSnapshot

STAGES = (
    "plan", "load", "index", "decode", "resize", "wait", "model", "merge", "collect", "blocked", "write", "commit",
    "finish",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with a value for each set of labels."""

    name: str
    kind: str
    help: str
    values: Mapping[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def metrics_of(run: RunSnapshot) -> list[Metric]:
    """Every metric of a run, in a fixed order and with the same labels in every run. Counters are of this process."""
    eta = run.eta_seconds
    shares = busy_shares(run.recent_stages)
    return [
        _by("dyntok_videos_total", "counter", "Videos that ended, by status.", "status",
            {"done": run.done, "failed": run.failed}),
        _by("dyntok_video_failures_total", "counter", "Videos that failed, by error class.", "class",
            {code: run.failures.get(code, 0) for code in VIDEO_ERROR_CODES}),
        _one("dyntok_frames_total", "counter", "Frames that went through the model.", run.frames),
        _one("dyntok_patches_total", "counter", "Patches of those frames.", run.patches),
        _one("dyntok_tokens_total", "counter", "Tokens that were kept of them.", run.tokens),
        _one("dyntok_shards_total", "counter", "Shards that were committed.", run.shards_done),
        _one("dyntok_bytes_total", "counter", "Bytes of the shards that were committed.", run.nbytes),
        _by("dyntok_stage_seconds_total", "counter", "Seconds spent in each stage.", "stage",
            {stage: run.stage_seconds.get(stage, 0.0) for stage in STAGES}),
        _by("dyntok_stage_busy_ratio", "gauge",
            "Share of the devices' recent time: their own work, waiting for decoding, and the writer's work.", "stage",
            {stage: shares.get(stage, 0.0) for stage in (DECODE, DEVICE, WRITE)}),
        _one("dyntok_decode_queue_batches", "gauge", "Filled batches that wait for a device.", run.queued),
        _one("dyntok_decode_processes", "gauge", "Decode processes.", run.decode_processes),
        _one("dyntok_devices", "gauge", "Devices that run the model.", run.devices),
        _one("dyntok_videos_planned", "gauge", "Videos of the run's share of the plan.", run.videos),
        _one("dyntok_videos_pending", "gauge", "Videos of the share that have not ended.", run.pending),
        _one("dyntok_shards_planned", "gauge", "Shards of the run's share of the plan.", run.shards),
        _one("dyntok_shards_pending", "gauge", "Shards of the share that are not committed.",
             run.shards - run.shards_before - run.shards_done),
        _one("dyntok_frames_per_second", "gauge", "Frames a second lately.", run.frames_per_second),
        _one("dyntok_eta_seconds", "gauge", "Seconds until the share is encoded; NaN while unknown.",
             math.nan if eta is None else eta),
        _one("dyntok_run_active", "gauge", "1 while the run goes on, 0 when it has ended or stopped.",
             float(run.state == RUNNING)),
        _one("dyntok_run_start_timestamp_seconds", "gauge", "When the run started.", run.started),
        _one("dyntok_run_update_timestamp_seconds", "gauge", "When these figures were written.", run.updated),
    ]  # fmt: skip


def render(run: RunSnapshot, store: str) -> str:
    """The text of the file. Labels of every metric: `store`, and `job` (empty unless it is a job of an array)."""
    common = (("store", store), ("job", "" if run.job_index is None else str(run.job_index)))
    return "".join(_lines(metrics_of(run), common))


def _lines(metrics: Iterable[Metric], common: tuple[tuple[str, str], ...]) -> Iterable[str]:
    for metric in metrics:
        yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
        for labels, value in metric.values.items():
            text = ",".join(f'{name}="{_escaped(content)}"' for name, content in (*common, *labels))
            yield f"{metric.name}{{{text}}} {_number(value)}\n"


def _one(name: str, kind: str, text: str, value: float) -> Metric:
    return Metric(name, kind, text, {(): value})


def _by(name: str, kind: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return Metric(name, kind, text, {((label, content),): value for content, value in values.items()})


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
