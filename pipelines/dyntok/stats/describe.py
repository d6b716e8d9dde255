"""From counts to figures: what `dyntok stats --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dyntok.stats.maps import PARTS, MapStatistics
from dyntok.stats.totals import Totals
from dyntok.stats.videos import PPM, Example, VideoStatistics

PERCENTS = (0, 10, 50, 90, 99, 100)


def describe(videos: VideoStatistics, maps: MapStatistics) -> dict[str, Any]:
    """As JSON types. Ratios and percentiles are over the videos that are done."""
    names = videos.names
    kept = {f"kept at {n}": d.percentiles(PERCENTS, PPM) for n, d in zip(names, videos.kept, strict=True)}
    return {
        **videos.totals.to_json(names),
        "percentiles": {
            "frames": videos.frames.percentiles(PERCENTS),
            "seconds": videos.milliseconds.percentiles(PERCENTS, 1000),
            **{f"tokens at {n}": d.percentiles(PERCENTS) for n, d in zip(names, videos.tokens, strict=True)},
            **kept,
        },
        "decoders": _by_count(videos.decoders),
        "error_classes": _by_count(videos.error_classes),
        "failures": {
            name: [{"id": example.id, "error": example.error} for example in examples]
            for name, examples in videos.failures.items()
        },
        "least_kept": [example_json(example, names) for example in videos.least],
        "most_kept": [example_json(example, names) for example in videos.most],
        "by_frames": [_frames_json(values, names) for values in videos.by_frames.values()],
        **_maps_json(maps, names),
    }


def example_json(example: Example, names: tuple[str, ...]) -> dict[str, Any]:
    """One video that keeps little or much."""
    return {
        "id": example.id,
        "frames": example.frames,
        "seconds": example.seconds,
        "patches": example.patches,
        "tokens": dict(zip(names, example.tokens, strict=True)),
    }


def breakdown_json(column: str, totals: Mapping[str, Totals], names: tuple[str, ...]) -> dict[str, Any]:
    """Sums for each value of a column."""
    return {
        "column": column,
        "values": [{"value": value, **total.to_json(names)} for value, total in totals.items()],
    }


def _maps_json(maps: MapStatistics, names: tuple[str, ...]) -> dict[str, Any]:
    shape, curve = maps.shape, maps.curve()
    first, width = shape.rows, shape.frame_bin
    frame_tokens = {
        name: {
            "tokens": [first + width * i for i, n in enumerate(counts) if n],
            "frames": [n for n in counts if n],
        }
        for name, counts in zip(names, maps.frame_tokens.tolist(), strict=True)
    }
    return {
        "curve": {
            "threshold": list(shape.edges),
            "tokens": curve,
            "kept": [tokens / maps.patches if maps.patches else None for tokens in curve],
        },
        "similarity": {"edges": list(shape.edges), "counts": maps.similarity.tolist()},
        "group_size": dict(zip(names, maps.group_size.tolist(), strict=True)),
        "frame_tokens": frame_tokens,
        "parts": {
            "count": PARTS,
            "frames": maps.part_frames.tolist(),
            "patches": (maps.part_frames * shape.rows * shape.cols).tolist(),
            "tokens": dict(zip(names, maps.part_tokens.tolist(), strict=True)),
        },
    }


def _frames_json(values: tuple[int, ...], names: tuple[str, ...]) -> dict[str, Any]:
    videos, frames, *rest = values
    tokens = {
        name: {"mean": rest[3 * i] / videos, "least": rest[3 * i + 1], "most": rest[3 * i + 2]}
        for i, name in enumerate(names)
    }
    return {"videos": videos, "frames": frames / videos, "tokens": tokens}


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """Most frequent first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
