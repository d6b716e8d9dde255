"""Reports as text: what several commands show in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dyntok_cli.tables import count, duration, pairs, ratio, size, table

if TYPE_CHECKING:
    from dyntok.records import VideoRow
    from dyntok.run import EncodeReport, PlanReport, StatusReport


def encode_text(report: EncodeReport) -> str:
    """The outcome of a run."""
    before = f" ({count(report.already)} by earlier runs)" if report.already else ""
    lines = [
        ("store", report.out),
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
    running = ", a process is writing to it now" if report.running else ""
    lines = [
        ("store", report.out),
        ("state", f"{report.state}{running}"),
        (
            "videos",
            f"{count(report.videos)}: {count(report.done)} done, {count(report.failed)} failed, "
            f"{count(report.pending)} pending",
        ),
        ("shards", f"{count(report.shards_done)} of {count(report.shards)}, {size(report.bytes)}"),
        ("frames", count(report.frames)),
    ]
    lines += [(f"tokens at {name}", count(tokens)) for name, tokens in report.tokens.items()]
    parts = [pairs(lines)]
    if report.error_classes:
        parts.append(error_classes_table(report.error_classes))
    return "\n\n".join(parts)


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
    lines = table(("failed video", "error class", "reason"), [(r.id, r.error_class, r.error) for r in rows])
    more = total - len(rows)
    return f"{lines}\n... and {count(more)} more" if more > 0 else lines
