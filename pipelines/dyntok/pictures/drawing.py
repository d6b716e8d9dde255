"""Groups and similarities drawn over one frame. Pure functions on `[H, W, 3]` uint8 RGB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import boundaries
from dyntok.pictures.layout import GridLayout

Image = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

PAPER = (190, 214, 240)
GREY, GREY_SHARE = 122.0, 0.78
BORDER = (255, 255, 255)
# What is left of the light right of and below a border, so that it shows on bright pictures too.
SHADOW = 0.4
# Similarity 0 to 1, dark to bright, so that it also reads without colours.
_STOPS = np.array([(46, 22, 84), (44, 84, 158), (28, 146, 142), (136, 200, 84), (252, 236, 88)], np.float64)
HEAT_SHARE = 0.72
NO_NEIGHBOUR = (128.0, 128.0, 128.0)
_LUMA = np.array([0.299, 0.587, 0.114])


def blank(height: int, width: int) -> Image:
    """What is drawn on where the source's frame is not to be had."""
    return np.broadcast_to(np.array(PAPER, np.uint8), (height, width, 3)).copy()


def draw_groups(image: Image, similarity: Map, threshold: float, layout: GridLayout) -> Image:
    """The frame with each patch that merged into its left neighbour shaded grey, and with the groups' borders.

    `similarity: [R, C]`. So what keeps its colours is one patch for each token: its group's first.
    """
    begins = boundaries(similarity, threshold)
    grey = np.rint((1 - GREY_SHARE) * image.astype(np.float64) + GREY_SHARE * GREY).astype(np.uint8)
    shaded = np.where(layout.spread(~begins, False)[..., None], grey, image)
    lines = border_pixels(begins, layout)
    beside = np.zeros_like(lines)
    beside[1:] |= lines[:-1]
    beside[:, 1:] |= lines[:, :-1]
    shaded[beside] = np.rint(shaded[beside] * SHADOW)
    shaded[lines] = BORDER
    return shaded.astype(np.uint8)


def border_pixels(begins: npt.NDArray[np.bool_], layout: GridLayout) -> npt.NDArray[np.bool_]:
    """`[H, W]`: the pixels around the grid, between rows, and left of each patch that `begins: [R, C]` a group."""
    rows, cols = layout.row_edges, layout.col_edges
    lines = np.zeros((layout.height, layout.width), np.bool_)
    thick = line_width(layout)
    for row, edge in enumerate(rows.tolist()):
        lines[_stroke(edge, thick, layout.height), : cols[-1]] = True
        if row == len(begins):
            break
        for col in [*np.flatnonzero(begins[row]).tolist(), len(cols) - 1]:
            lines[edge : rows[row + 1], _stroke(int(cols[col]), thick, layout.width)] = True
    return lines


def line_width(layout: GridLayout) -> int:
    """Pixels of a border: a 24th of a patch, at least one."""
    smallest = min(int(np.diff(layout.row_edges).min()), int(np.diff(layout.col_edges).min()))
    return max(1, round(smallest / 24))


def similarity_map(image: Image, similarity: Map, layout: GridLayout) -> Image:
    """The frame without colours under the similarity `[R, C]` of each patch to its left neighbour, 0 dark to 1 bright.

    Column 0, which has no left neighbour, is grey.
    """
    colours = heat_colours(similarity)
    colours[:, 0] = NO_NEIGHBOUR
    luma = (image.astype(np.float64) @ _LUMA)[..., None]
    mixed = (1 - HEAT_SHARE) * luma + HEAT_SHARE * layout.spread(colours, 0.0)
    inside = (layout.row_of >= 0)[:, None] & (layout.col_of >= 0)[None, :]
    return np.where(inside[..., None], np.rint(mixed), image).astype(np.uint8)


def heat_colours(values: Map) -> npt.NDArray[np.float64]:
    """`[..., 3]` colours of similarities, clamped to [0, 1]."""
    at = np.nan_to_num(np.clip(values, 0.0, 1.0)) * (len(_STOPS) - 1)
    places = np.arange(len(_STOPS))
    return np.stack([np.interp(at, places, _STOPS[:, channel]) for channel in range(3)], axis=-1)


def _stroke(edge: int, thick: int, size: int) -> slice:
    """`thick` pixels around an edge, inside the picture."""
    first = min(max(0, edge - thick // 2), size - thick)
    return slice(max(0, first), max(0, first) + thick)
