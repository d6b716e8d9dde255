"""Where a group of patches begins: the one rule, for numpy and for torch, and the sizes that follow from it.

A patch joins its left neighbour where their similarity exceeds the threshold as float32. Everywhere else it begins a
group: in column 0, whatever stands there, at a similarity that equals the threshold, and at a NaN. Imports numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

# Bounds the temporaries of long videos; results do not depend on it.
FRAMES_AT_ONCE = 512


def boundaries(similarity: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """`[..., R, C]`, True where a patch begins a group."""
    begins = similarity > np.float32(threshold)
    np.logical_not(begins, out=begins)
    begins[..., 0] = True
    return begins


def torch_boundaries(similarity: Tensor, threshold: float) -> Tensor:
    """`boundaries` of a float32 tensor, on its device."""
    # A Python number is compared in the tensor's dtype.
    begins = (similarity > threshold).logical_not_()
    begins[..., 0].fill_(True)
    return begins


def lowest_edges(similarity: npt.NDArray[np.float32], edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """`[..., R, C]`: from which of the rising `edges` on, taken as thresholds, a patch begins a group.

    It is 0 in column 0, and `len(edges)` where a patch joins at each of them.
    """
    # NaN sorts above everything; it begins a group at every threshold, as -inf does.
    values = np.fmax(similarity, np.float32(-np.inf))
    lowest = np.searchsorted(np.array(edges, np.float32), values)
    lowest[..., 0] = 0
    return lowest


def group_sizes(begins: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """`[N]`, patches of each group, from `boundaries` of any shape."""
    return np.diff(np.flatnonzero(begins), append=begins.size)


def groups_of(
    similarity: npt.NDArray[np.float32], threshold: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """`group_size [N]` and `row_splits [T*R + 1]` of a map `[T, R, C]` that gives N < 2^31 tokens."""
    sizes, rows = [np.zeros(0, np.uint8)], [np.zeros(1, np.int32)]
    for first in range(0, len(similarity), FRAMES_AT_ONCE):
        begins = boundaries(similarity[first : first + FRAMES_AT_ONCE], threshold)
        sizes.append(group_sizes(begins).astype(np.uint8))
        rows.append(begins.sum(-1, dtype=np.int32).ravel())
    return np.concatenate(sizes), np.cumsum(np.concatenate(rows), dtype=np.int32)
