"""Where the patch grid lies on a frame of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.records import Grid

Places = npt.NDArray[np.int64]
OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class GridLayout:
    """The grid on a picture of `height x width` pixels.

    Attributes:
        row_edges: `[R + 1]`, the first pixel row of each row of patches, and the one after the last.
        col_edges: `[C + 1]`, the same for pixel columns.
    """

    height: int
    width: int
    row_edges: Places
    col_edges: Places

    @classmethod
    def over(cls, height: int, width: int, grid: Grid, covered: tuple[float, float] = (1.0, 1.0)) -> GridLayout:
        """`covered`: the share of the height and of the width that the model sees, from the top left."""
        rows = np.rint(np.linspace(0, height * covered[0], grid.rows + 1)).astype(np.int64)
        cols = np.rint(np.linspace(0, width * covered[1], grid.cols + 1)).astype(np.int64)
        return cls(height, width, rows, cols)

    @property
    def row_of(self) -> Places:
        """`[height]` the row of patches of each pixel row, -1 outside the grid."""
        return _owners(self.row_edges, self.height)

    @property
    def col_of(self) -> Places:
        """`[width]` the column of patches of each pixel column, -1 outside the grid."""
        return _owners(self.col_edges, self.width)

    def spread(self, values: npt.NDArray[Any], outside: Any) -> npt.NDArray[Any]:
        """`values: [R, C, ...]` for each pixel, `[height, width, ...]`; `outside` beyond the grid."""
        rows, cols = self.row_of, self.col_of
        spread: npt.NDArray[Any] = values[rows][:, cols]
        spread[rows == OUTSIDE] = outside
        spread[:, cols == OUTSIDE] = outside
        return spread


def covered_share(model: Mapping[str, Any]) -> tuple[float, float]:
    """Which share of a frame's height and width the patches of a model cover, from `dataset.json`.

    A frame is squashed to the model's size and cut into whole patches from the top left: of 384 pixels, 27 patches of
    14 cover 378. Pooling (bilinear, corners not aligned) spreads its cells evenly over these patches.
    """
    return (
        _share(model.get("height"), model.get("encoder_rows")),
        _share(model.get("width"), model.get("encoder_cols")),
    )


def _share(pixels: object, patches: object) -> float:
    if not (isinstance(pixels, int) and isinstance(patches, int) and 0 < patches <= pixels):
        return 1.0
    return pixels // patches * patches / pixels


def _owners(edges: Places, size: int) -> Places:
    owners = np.searchsorted(edges, np.arange(size), side="right") - 1
    owners[owners >= len(edges) - 1] = OUTSIDE
    return owners.astype(np.int64)
