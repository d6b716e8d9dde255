"""Cosine similarity of each patch with its left neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from dyntok.errors import MergeError, NonFiniteFeatureError
from dyntok.merging.blocks import float_blocks, largest_magnitude, rows_at_once


def left_similarity(features: Tensor) -> Tensor:
    """Similarity map of a video (DynTok, arXiv 2506.03990, section 3).

    Args:
        features: `[T, R, C, F]`, any floating dtype; the arithmetic is float32.

    Returns:
        `[T, R, C]` float32 in [-1, 1]; column 0 is -inf, as a row's first patch has no left neighbour. A zero
        vector has similarity 0 to anything.

    Raises:
        NonFiniteFeatureError: a feature is NaN or infinite; the error names the frame.
        MergeError: the tensor has another rank or no floating dtype.
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise MergeError(f"features must be floating [T, R, C, F], got {features.dtype} {list(features.shape)}")
    if 0 in features.shape[2:]:
        raise MergeError(f"features have an empty dimension: {list(features.shape)}")
    frames, rows, cols, _ = features.shape
    similarity = torch.full((frames, rows, cols), -torch.inf, device=features.device)
    inner = similarity.view(frames * rows, cols)[:, 1:]
    at_once = rows_at_once(features)
    in_blocks = at_once < frames * rows
    row = 0
    for x in float_blocks(features.flatten(0, 1) if in_blocks else features, at_once):
        largest = largest_magnitude(x, keepdim=True)
        _check_finite(largest.reshape(-1, cols), row, rows)
        # Scaling by the largest component keeps the squares inside float32 for any finite input.
        largest = largest.clamp(min=torch.finfo(torch.float32).tiny)
        cosine = _left_cosine(x.div_(largest) if in_blocks else x / largest)
        end = min(row + at_once, frames * rows)
        inner[row:end] = cosine.reshape(end - row, cols - 1)
        row = end
    return similarity


def _check_finite(largest: Tensor, first_row: int, rows: int) -> None:
    """`largest: [N, C]` are those of the rows from `first_row` on, counted over all frames of `rows` rows."""
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        row = first_row + int((~finite).any(1).nonzero()[0])
        raise NonFiniteFeatureError(row // rows)


def _left_cosine(x: Tensor) -> Tensor:
    """Cosines `[..., C - 1]` between neighbours of `x: [..., C, F]`, 0 with a zero vector."""
    norm = torch.linalg.vector_norm(x, dim=-1)
    dot = torch.linalg.vecdot(x[..., :-1, :], x[..., 1:, :])
    product = norm[..., :-1] * norm[..., 1:]
    cosine = torch.where(product > 0, dot / product.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    return cosine.clamp_(-1.0, 1.0)
