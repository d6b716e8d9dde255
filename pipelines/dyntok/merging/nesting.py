"""Lower thresholds from stored tokens, without the patches."""

from __future__ import annotations

import torch
from torch import Tensor

from dyntok.errors import MergeError
from dyntok.merging.plan import MergePlan, segment_sum


def coarsen(tokens: Tensor, fine: MergePlan, coarse: MergePlan) -> Tensor:
    """Tokens at a lower threshold, as means of stored tokens weighted by their group sizes.

    Boundaries of a lower threshold are a subset of those of a higher one, so every coarse group is a run of fine
    groups and the weighted mean equals the direct one up to the rounding of `tokens`' dtype.

    Args:
        tokens: `[N, D]` at `fine`.
        fine, coarse: plans over the same patches, `coarse` at a threshold no higher than `fine`'s.

    Returns:
        `[M, D]` float32, M <= N.

    Raises:
        MergeError: the plans are not nested, or `tokens` is not at `fine`.
    """
    if tokens.shape[0] != fine.token_count:
        raise MergeError(f"the plan has {fine.token_count} groups, the tensor has {tokens.shape[0]} tokens")
    if fine.shape != coarse.shape:
        raise MergeError(f"the plans are for {list(fine.shape)} and {list(coarse.shape)} patches")
    if coarse.token_count == fine.token_count:
        return tokens.float()
    start = torch.searchsorted(fine.group_start, coarse.group_start)
    if not bool((fine.group_start[start.clamp(max=fine.token_count - 1)] == coarse.group_start).all()):
        raise MergeError("the thresholds are not nested: tokens can only be merged further, never split")
    sums = segment_sum(tokens.float(), start, weights=fine.group_size.float())
    return sums.div_(coarse.group_size[:, None])
