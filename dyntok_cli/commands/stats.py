"""`dyntok stats`: figures of a whole store, from its index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dyntok_cli.options import Debug, Json, Store
from dyntok_cli.output import Output
from dyntok_cli.rendering import error_classes_table
from dyntok_cli.tables import count, duration, pairs, ratio, size, table

if TYPE_CHECKING:
    from dyntok.store import StoreIndex

PERCENTILES = (0, 10, 50, 90, 99, 100)


def stats(store: Store, *, json: Json = False, debug: Debug = False) -> None:
    """Show the figures of a whole store.

    Totals, tokens at each threshold, percentiles over the videos, decoders and error classes.
    Reads the index alone, so it is quick on a million videos.
    """
    from dyntok.store import StoreIndex, StoreRoot

    figures = summary(StoreIndex.open(StoreRoot.open(store)))
    Output(json=json).report({"store": store, **figures}, stats_text(store, figures))


def summary(index: StoreIndex) -> dict[str, Any]:
    """Totals and percentiles as JSON types. Ratios and percentiles are over the videos that are done."""
    done = index.done
    values = {name: index.numbers(name)[done] for name in ("frames", "seconds", "patches", "nbytes")}
    tokens = {name: index.numbers(f"tokens_{name}")[done] for name in index.thresholds}
    patches = int(values["patches"].sum())
    statuses, decoders = _counts(index, "status"), _counts(index, "decoder")
    errors = _counts(index, "error_class")
    return {
        "videos": len(index),
        **{status: statuses.get(status, 0) for status in ("done", "failed", "pending")},
        "frames": int(values["frames"].sum()),
        "seconds": float(values["seconds"].sum()),
        "patches": patches,
        "bytes": int(values["nbytes"].sum()),
        "tokens": {name: int(numbers.sum()) for name, numbers in tokens.items()},
        "kept": {name: int(numbers.sum()) / patches if patches else None for name, numbers in tokens.items()},
        "percentiles": {
            "frames": _percentiles(values["frames"]),
            "seconds": _percentiles(values["seconds"]),
            **{f"tokens at {name}": _percentiles(numbers) for name, numbers in tokens.items()},
            **{
                f"kept at {name}": _percentiles(numbers / values["patches"])
                for name, numbers in tokens.items()
            },
        },
        "decoders": {name: number for name, number in decoders.items() if name},
        "error_classes": {name: number for name, number in errors.items() if name},
    }


def stats_text(store: str, figures: dict[str, Any]) -> str:
    """`summary` as text."""
    decoders = ", ".join(f"{name} {count(number)}" for name, number in figures["decoders"].items())
    lines = [
        ("store", store),
        (
            "videos",
            f"{count(figures['videos'])}: {count(figures['done'])} done, {count(figures['failed'])} failed, "
            f"{count(figures['pending'])} pending",
        ),
        ("length", duration(figures["seconds"])),
        ("frames", count(figures["frames"])),
        ("patches", count(figures["patches"])),
        ("bytes", size(figures["bytes"])),
        ("decoded by", decoders),
    ]
    kept = [(t, count(n), ratio(n, figures["patches"])) for t, n in figures["tokens"].items()]
    parts = [pairs(lines), table(("threshold", "tokens", "kept"), kept)]
    if figures["done"]:
        rows = [
            (name, *(_figure(name, value) for value in values.values()))
            for name, values in figures["percentiles"].items()
        ]
        parts.append(table(("a video's", *(_percentile_name(p) for p in PERCENTILES)), rows))
    if figures["error_classes"]:
        parts.append(error_classes_table(figures["error_classes"]))
    return "\n\n".join(parts)


def _counts(index: StoreIndex, column: str) -> dict[str, int]:
    """How often each text occurs, most frequent first."""
    values = index.column(column).value_counts().to_pylist()
    return {v["values"]: v["counts"] for v in sorted(values, key=lambda v: (-v["counts"], v["values"]))}


def _percentiles(numbers: Any) -> dict[str, float]:
    import numpy as np

    if not len(numbers):
        return {}
    return {f"p{p}": float(np.percentile(numbers, p)) for p in PERCENTILES}


def _percentile_name(percentile: int) -> str:
    return {0: "least", 50: "median", 100: "most"}.get(percentile, f"{percentile} %")


def _figure(name: str, value: float) -> str:
    if name.startswith("kept"):
        return ratio(value, 1)
    return duration(value) if name == "seconds" else count(round(value))
