"""Cosine similarity of each patch with its left neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from dyntok.errors import MergeError, NonFiniteFeatureError


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
        raise MergeError(
            f"features must be floating [T, R, C, F], got {features.dtype} {list(features.shape)}"
        )
    if 0 in features.shape[2:]:
        raise MergeError(f"features have an empty dimension: {list(features.shape)}")
    x = features.float()
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=-1, keepdim=True)
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        frame = int((~finite).flatten(1).any(1).nonzero()[0])
        raise NonFiniteFeatureError(frame)
    # Scaling by the largest component keeps the squares inside float32 for any finite input.
    x = x / largest.clamp(min=torch.finfo(torch.float32).tiny)
    norm = torch.linalg.vector_norm(x, dim=-1)
    dot = torch.linalg.vecdot(x[:, :, :-1], x[:, :, 1:])
    product = norm[:, :, :-1] * norm[:, :, 1:]
    cosine = torch.where(product > 0, dot / product.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    similarity = torch.full(x.shape[:3], -torch.inf, device=x.device)
    similarity[:, :, 1:] = cosine.clamp_(-1.0, 1.0)
    return similarity
