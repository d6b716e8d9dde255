"""Damaged videos by the hundred: truncated, flipped and spliced files of six container types."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.support.clips import make_clip

# MP4 (plain and fragmented), Matroska (and WebM), AVI, MPEG-TS, MPEG-PS, FLV.
BASES = (
    "bframes.mp4",
    "bframes.mkv",
    "mpeg4.avi",
    "mpeg2.ts",
    "mpeg2.mpg",
    "film.flv",
    "fragmented.mp4",
    "vp9.webm",
)
_HEADER_BYTES = 4096

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def truncated(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """The beginning; now and then only that of its headers, or the end without its beginning."""
    kind = rng.random()
    if kind < 0.2:
        return data[: rng.randrange(min(len(data), _HEADER_BYTES))]
    at = rng.randrange(1, len(data))
    return data[at:] if kind > 0.9 else data[:at]


def flipped(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """One to fifty bytes changed, anywhere or in the headers, which lie at either end."""
    changed = bytearray(data)
    region = len(data) if rng.random() < 0.5 else min(len(data), _HEADER_BYTES)
    for _time in range(rng.choice((1, 1, 3, 10, 50))):
        at = rng.randrange(region)
        changed[at if rng.random() < 0.5 else -1 - at] = rng.randrange(256)
    return bytes(changed)


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A stretch that is missing, doubled, zero, in another place, or of another file."""
    begin = rng.randrange(len(data))
    end = rng.randrange(begin, min(len(data), begin + max(1, len(data) // 2))) + 1
    stretch, at = data[begin:end], rng.randrange(len(data))
    foreign = other[rng.randrange(len(other)) :][: end - begin]
    return rng.choice(
        (
            data[:begin] + data[end:],
            data[:end] + stretch + data[end:],
            data[:begin] + bytes(end - begin) + data[end:],
            data[:at] + stretch + data[at:],
            data[:begin] + foreign + data[end:],
            data[:begin] + other[min(begin, len(other) - 1) :],
        )
    )


MUTATIONS: dict[str, Mutation] = {"truncated": truncated, "flipped": flipped, "spliced": spliced}


def mutants(folder: Path, count: int, seed: int) -> list[Path]:
    """Write `count` damaged videos into `folder`, in turn of every kind and container, the same for the same seed.

    The sound clips they are made from lie beside the folder, in one of its name with `-sound` behind it.
    """
    sound = folder.with_name(f"{folder.name}-sound")
    bases = [there if (there := sound / name).exists() else make_clip(name, sound) for name in BASES]
    contents = [path.read_bytes() for path in bases]
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    kinds = list(MUTATIONS)
    paths = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        base = number // len(kinds) % len(bases)
        data = MUTATIONS[kind](rng, contents[base], rng.choice(contents))
        path = folder / f"{number:05d}-{kind}{bases[base].suffix}"
        path.write_bytes(data)
        paths.append(path)
    return paths
