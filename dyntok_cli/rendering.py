"""Reports as text: what several commands show in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dyntok_cli.tables import count, duration, pairs, ratio, size, table

if TYPE_CHECKING:
    from dyntok.records import VideoRow
    from dyntok.run import EncodeReport, PlanReport, StatusReport
    from dyntok.run.watch.reports import JobStatus, ShardStatus, StageStatus


def encode_text(report: EncodeReport) -> str:
    """The outcome of a run."""
    before = f" ({count(report.already)} by earlier runs)" if report.already else ""
    job = [] if report.job_index is None else [("job", f"{report.job_index} of {report.num_jobs}")]
    lines = [
        ("store", report.out),
        *job,
        ("videos", f"{count(report.done)} done, {count(report.failed)} failed{before}"),
        ("frames", count(report.frames)),
        ("shards", f"{count(report.shards)}, {size(report.bytes)}"),
        ("time", duration(report.seconds)),
    ]
    return f"{pairs(lines)}\n\n{thresholds_table(report.tokens, report.patches)}"


def plan_text(report: PlanReport) -> str:
    """What a run would do."""
    unreadable = f", {count(report.unreadable)} of them unreadable" if report.unreadable else ""
    probed = f", expected from {count(report.probed)} videos" if report.probed else ""
    lines = [
        ("videos", f"{count(report.videos)}{unreadable}, {size(report.input_bytes)}"),
        ("model", str(report.model.get("name", ""))),
        ("shards", count(report.shards)),
        ("frames", f"{count(report.frames)}{probed}"),
        ("patches", count(report.patches)),
    ]
    rows = [
        (name, count(tokens), ratio(tokens, report.patches), size(report.bytes_by_threshold[name]))
        for name, tokens in report.tokens.items()
    ]
    headers = ("threshold", "tokens", "kept", "bytes")
    note = "Tokens and bytes are expected from published ratios; real ones depend on the videos."
    return f"{pairs(lines)}\n\n{table(headers, rows)}\n\n{note}"


def status_text(report: StatusReport) -> str:
    """How far a store is."""
    running = ", being written now" if report.running else ""
    lines = [
        ("store", report.out),
        ("state", f"{report.state}{running}"),
        (
            "videos",
            f"{count(report.videos)}: {count(report.done)} done, {count(report.failed)} failed, "
            f"{count(report.pending)} pending",
        ),
        (
            "shards",
            f"{count(report.shards)}: {count(report.shards_done)} done, {count(report.shards_failed)} of them "
            f"with failures, {count(report.shards_pending)} pending; {size(report.bytes)}",
        ),
        ("frames", count(report.frames)),
    ]
    lines += [(f"tokens at {name}", count(tokens)) for name, tokens in report.tokens.items()]
    lines += list(_pace_lines(report))
    parts = [pairs(lines)]
    if report.jobs:
        parts.append(jobs_table(report.jobs))
    if report.stages:
        parts.append(stages_table(report.stages))
    if report.error_classes:
        parts.append(error_classes_table(report.error_classes))
    return "\n\n".join(parts)


def _pace_lines(report: StatusReport) -> Iterator[tuple[str, str]]:
    if report.running and report.videos_per_second:
        yield "pace", f"{report.frames_per_second:.3g} frames/s, {report.videos_per_second:.3g} videos/s"
    if report.eta_seconds is not None:
        idle = f"; {count(report.idle_pending)} videos wait for jobs that do not run" if report.idle_pending else ""
        yield "left", f"{duration(report.eta_seconds)}{idle}"
    if report.bottleneck is not None:
        shares = ", ".join(f"{name} {ratio(share, 1)}" for name, share in report.busy.items())
        yield "bottleneck", f"{report.bottleneck} (of the device's time: {shares})"


def jobs_table(jobs: Sequence[JobStatus]) -> str:
    """How far each job of an array is."""
    rows = [
        (
            str(job.index),
            "running" if job.running else "-" if job.shards_done < job.shards else "done",
            f"{count(job.shards_done)} of {count(job.shards)}",
            count(job.pending),
            "-" if job.eta_seconds is None else duration(job.eta_seconds),
            f"{job.host} {job.pid}" if job.host else "",
        )
        for job in jobs
    ]
    return table(("job", "state", "shards", "videos left", "left", "last on"), rows)


def stages_table(stages: Sequence[StageStatus]) -> str:
    """Seconds by stage, and the pace of each process or thread in it."""
    rows = [(s.stage, f"{s.seconds:.1f}", _rate(s.frames_per_second)) for s in stages]
    return table(("stage", "seconds", "frames/s"), rows)


def _rate(a_second: float) -> str:
    return f"{a_second:,.0f}" if a_second >= 100 else f"{a_second:.3g}"


def shards_table(shards: Sequence[ShardStatus]) -> str:
    """Every shard."""
    rows = [
        (
            count(s.shard),
            s.state,
            "-" if s.job is None else str(s.job),
            count(s.videos),
            count(s.done),
            count(s.failed),
            size(s.bytes),
        )
        for s in shards
    ]
    return table(("shard", "state", "job", "videos", "done", "failed", "bytes"), rows)


def thresholds_table(tokens: Mapping[str, int], patches: int) -> str:
    """Tokens and their share of the patches at each threshold."""
    rows = [(name, count(number), ratio(number, patches)) for name, number in tokens.items()]
    return table(("threshold", "tokens", "kept"), rows)


def error_classes_table(classes: Mapping[str, int]) -> str:
    """How often each error class occurred, and what it means."""
    from dyntok.errors import VIDEO_ERROR_CODES

    rows = [(name, count(number), VIDEO_ERROR_CODES.get(name, "")) for name, number in classes.items()]
    return table(("error class", "videos", "meaning"), rows)


def failures_text(rows: Sequence[VideoRow], total: int) -> str:
    """Failed videos with their reasons; says so when there are more than are shown."""
    from dyntok.records import reason

    lines = table(
        ("failed video", "error class", "reason"),
        [(r.id, r.error_class, reason(r.id, r.error)) for r in rows],
    )
    more = total - len(rows)
    return f"{lines}\n... and {count(more)} more" if more > 0 else lines
