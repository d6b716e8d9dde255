"""Token counts and budgets, from the similarity map alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dyntok.boundaries import torch_boundaries
from dyntok.errors import MergeError


def count_tokens(similarity: Tensor, thresholds: Sequence[float]) -> list[int]:
    """Tokens (markers not counted) of `similarity: [T, R, C]` at each threshold, exactly."""
    _check_map(similarity)
    return [int(torch_boundaries(similarity, threshold).count_nonzero()) for threshold in thresholds]


def threshold_for_budget(similarity: Tensor, budget: int, markers: int = 0, at_most: float = 1.0) -> float:
    """Largest threshold, no more than `at_most`, at which tokens and `markers` together fit `budget`.

    Merging happens where `similarity > threshold`, so the answer is the float32 just below the similarity of the
    first boundary that no longer fits; ties between similarities stay on the side that fits.

    Raises:
        MergeError: even one token a row is too many; the message gives the smallest possible count.
    """
    _check_map(similarity)
    inner = similarity[:, :, 1:]
    mergeable = inner[inner > -torch.inf]
    fewest = similarity.numel() - mergeable.numel() + markers
    spare = budget - fewest
    if spare < 0:
        raise MergeError(
            f"a budget of {budget} cannot be met: one token per row"
            f"{' and the markers' if markers else ''} make {fewest}",
            hint="ask for fewer frames, another marker mode, or a larger budget",
        )
    if spare >= mergeable.numel():
        return at_most
    first_too_many = torch.kthvalue(mergeable, spare + 1).values
    below = torch.nextafter(first_too_many, torch.full_like(first_too_many, -torch.inf))
    return min(float(below), at_most)


def _check_map(similarity: Tensor) -> None:
    if similarity.ndim != 3:
        raise MergeError(f"a similarity map is [T, R, C], got {list(similarity.shape)}")
