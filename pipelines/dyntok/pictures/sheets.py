"""Pictures put beside and below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dyntok.pictures.drawing import Image, heat_colours
from dyntok.pictures.labels import label

PAPER = 255
_SHAPE = 1.6


def beside(images: Sequence[Image], gap: int) -> Image:
    """Pictures of one height in a row, `gap` white pixels between them."""
    return _joined(images, gap, axis=1)


def below(images: Sequence[Image], gap: int) -> Image:
    """Pictures of one width in a column, `gap` white pixels between them."""
    return _joined(images, gap, axis=0)


def framed(image: Image, gap: int) -> Image:
    """A picture with `gap` white pixels around it."""
    wide: Image = np.pad(image, ((gap, gap), (gap, gap), (0, 0)), constant_values=PAPER)
    return wide


def sheet(images: Sequence[Image], gap: int) -> Image:
    """Pictures of one size in rows, so that the whole is about 1.6 times as wide as high; empty places are white."""
    cols = sheet_columns(len(images), *images[0].shape[:2])
    empty = np.full_like(images[0], PAPER)
    padded = [*images, *[empty] * (-len(images) % cols)]
    rows = [beside(padded[first : first + cols], gap) for first in range(0, len(padded), cols)]
    return framed(below(rows, gap), gap)


def sheet_columns(count: int, height: int, width: int) -> int:
    """How many of `count` pictures go into a row of a sheet."""

    def how_far(cols: int) -> float:
        return abs(math.log(cols * width / (-(-count // cols) * height) / _SHAPE))

    return min(range(1, count + 1), key=how_far)


def heat_bar(width: int, height: int) -> Image:
    """What the colours of a similarity map mean: `similarity to the left  0 [colours] 1`."""
    bar_width = max(8, width // 4)
    digit = max(6, round(height * 0.75))
    text = label("similarity to the left", max(1, width - bar_width - 2 * digit), height)
    colours = np.rint(heat_colours(np.linspace(0, 1, bar_width, dtype=np.float32))).astype(np.uint8)
    bar = np.full((height, bar_width, 3), PAPER, np.uint8)
    inset = height // 5
    bar[inset : height - inset] = colours
    parts = [text, label("0", digit, height), bar, label("1", digit, height)]
    joined: Image = np.concatenate(parts, axis=1)[:, :width]
    return joined


def _joined(images: Sequence[Image], gap: int, axis: int) -> Image:
    shape = list(images[0].shape)
    shape[axis] = gap
    space = np.full(shape, PAPER, np.uint8)
    return np.concatenate([part for image in images for part in (space, image)][1:], axis)
