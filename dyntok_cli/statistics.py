"""The figures of `dyntok stats` as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dyntok_cli.rendering import error_classes_table
from dyntok_cli.tables import count, duration, pairs, ratio, size, table

SHOWN_THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHOWN_EXTREMES = 3


def stats_text(figures: dict[str, Any]) -> str:
    """The document of one store as text."""
    decoders = ", ".join(f"{name or 'others'} {count(n)}" for name, n in figures["decoders"].items())
    again = f", {count(figures['recounted'])} of them counted again" if figures["recounted"] else ""
    lines = [
        ("store", figures["store"]),
        (
            "videos",
            f"{count(figures['videos'])}: {count(figures['done'])} done, {count(figures['failed'])} failed, "
            f"{count(figures['pending'])} pending",
        ),
        ("shards", f"{count(figures['shards'])}{again}"),
        ("length", duration(figures["seconds"])),
        ("frames", count(figures["frames"])),
        ("patches", count(figures["patches"])),
        ("bytes", size(figures["bytes"])),
        ("decoded by", decoders),
    ]
    kept = [(t, count(n), ratio(n, figures["patches"])) for t, n in figures["tokens"].items()]
    parts = [pairs(lines), table(("threshold", "tokens", "kept"), kept)]
    if figures["done"]:
        parts += [curve_table(figures), groups_table(figures), percentiles_table(figures)]
        parts.append(extremes_table(figures))
    if figures["by"] is not None:
        parts.append(breakdown_table(figures["by"]))
    if figures["error_classes"]:
        parts.append(error_classes_table(figures["error_classes"]))
    return "\n\n".join(parts)


def curve_table(figures: dict[str, Any]) -> str:
    """The kept share at round thresholds, configured or not."""
    curve = dict(zip(figures["curve"]["threshold"], figures["curve"]["kept"], strict=True))
    shown = [ratio(curve[threshold], 1) for threshold in SHOWN_THRESHOLDS]
    return table(("at threshold", *(f"{t:.1f}" for t in SHOWN_THRESHOLDS)), [("kept", *shown)])


def groups_table(figures: dict[str, Any]) -> str:
    """Groups and frames at each threshold."""
    rows = []
    for name, counts in figures["group_size"].items():
        tokens = figures["tokens"][name]
        rows.append(
            (
                name,
                f"{figures['patches'] / tokens:.2f}",
                ratio(counts[0], tokens),
                f"{tokens / figures['frames']:.1f}",
            )
        )
    return table(("threshold", "patches a token", "single patches", "tokens a frame"), rows)


def percentiles_table(figures: dict[str, Any]) -> str:
    """How the numbers of a video are spread."""
    percents = next(iter(figures["percentiles"].values()))
    rows = [
        (name, *(_figure(name, value) for value in values.values())) for name, values in figures["percentiles"].items()
    ]
    return table(("a video's", *map(_percentile_name, percents)), rows)


def extremes_table(figures: dict[str, Any]) -> str:
    """Videos that keep the smallest and the largest share."""
    name = list(figures["tokens"])[-1]
    shown = [
        (video["id"], what, ratio(video["tokens"][name], video["patches"]), count(video["frames"]))
        for what, videos in (("least", figures["least_kept"]), ("most", figures["most_kept"]))
        for video in videos[:SHOWN_EXTREMES]
    ]
    return table(("video", "keeps", f"at {name}", "frames"), shown)


def breakdown_table(by: dict[str, Any]) -> str:
    """Sums for each value of a column."""
    names = list(by["values"][0]["tokens"])
    rows = [
        (
            total["value"],
            count(total["videos"]),
            count(total["failed"]),
            count(total["frames"]),
            *(ratio(total["tokens"][name], total["patches"]) for name in names),
            size(total["bytes"]),
        )
        for total in by["values"]
    ]
    kept = (f"at {name}" for name in names)
    return table((by["column"], "videos", "failed", "frames", *kept, "bytes"), rows)


def comparison_text(documents: Sequence[dict[str, Any]]) -> str:
    """Several stores in one table, after the text of each; nothing for one store."""
    if len(documents) < 2:
        return ""
    names = sorted({name for document in documents for name in document["tokens"]}, key=float)
    rows = []
    for document in documents:
        curve = dict(zip(document["curve"]["threshold"], document["curve"]["tokens"], strict=True))
        kept = (ratio(n, document["patches"]) if (n := curve.get(float(name))) else "-" for name in names)
        numbers = count(document["done"]), count(document["frames"])
        rows.append((document["store"], *numbers, *kept, size(document["bytes"])))
    return "\n\n\n" + table(("store", "videos", "frames", *(f"at {name}" for name in names), "bytes"), rows)


def _percentile_name(name: str) -> str:
    return {"p0": "least", "p50": "median", "p100": "most"}.get(name, f"{name[1:]} %")


def _figure(name: str, value: float) -> str:
    if name.startswith("kept"):
        return ratio(value, 1)
    return duration(value) if name == "seconds" else count(round(value))
