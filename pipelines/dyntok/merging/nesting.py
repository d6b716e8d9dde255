"""Lower thresholds from stored tokens, without the patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dyntok.errors import MergeError
from dyntok.merging.plan import MergePlan, segment_sum

# float32 bytes in work at a time. On CPUs they stay in the cache from one pass over them to the next.
_CPU_BLOCK_BYTES = 2**21
_BLOCK_BYTES = 2**28


def coarsen(
    tokens: Tensor,
    fine: MergePlan,
    coarse: MergePlan,
    *,
    scale: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Tokens at a lower threshold, as means of stored tokens weighted by their group sizes.

    Boundaries of a lower threshold are a subset of those of a higher one, so every coarse group is a run of fine
    groups and the weighted mean equals the direct one up to the rounding of `tokens`' dtype. Each mean is taken in
    float32 by one thread and cast once, so that it does not depend on the number of threads. A group of one stored
    token is that token, bit for bit; only from float32 to float32 may a zero lose its sign.

    Args:
        tokens: `[N, D]` at `fine`.
        fine, coarse: plans over the same patches, `coarse` at a threshold no higher than `fine`'s.
        scale: `[N]` float32 that multiplies the tokens, for those stored as int8.
        dtype: of the result, unless `out` is given.
        out: `[M, D]`, contiguous; takes the result, and shares no memory with `tokens`.

    Returns:
        `[M, D]`, M <= N: `out`, or a tensor of `dtype`, which is `tokens` itself if there is nothing to do.

    Raises:
        MergeError: the plans are not nested, `tokens` is not at `fine`, or `out` is not as above.
    """
    if tokens.ndim != 2 or tokens.shape[0] != fine.token_count:
        raise MergeError(f"the plan has {fine.token_count} groups, the tensor has {list(tokens.shape)} tokens")
    if fine.shape != coarse.shape:
        raise MergeError(f"the plans are for {list(fine.shape)} and {list(coarse.shape)} patches")
    shape = (coarse.token_count, tokens.shape[1])
    if out is not None and (tuple(out.shape) != shape or not out.is_contiguous()):
        raise MergeError(f"out must be contiguous {list(shape)}, it is {list(out.shape)} {out.stride()}")
    if scale is None and coarse.token_count == fine.token_count:
        return tokens.to(dtype) if out is None else out.copy_(tokens)
    start = torch.searchsorted(fine.group_start, coarse.group_start)
    if not bool((fine.group_start[start.clamp(max=fine.token_count - 1)] == coarse.group_start).all()):
        raise MergeError("the thresholds are not nested: tokens can only be merged further, never split")
    in_float32 = out is None and tokens.dtype == dtype == torch.float32
    if in_float32 or (torch.is_grad_enabled() and tokens.requires_grad):
        ones = torch.ones_like(fine.group_size, dtype=torch.float32)
        means = _means(fine, coarse, start, ones if scale is None else scale)
        mean = segment_sum(tokens.float(), means.first, means.weight).div_(means.divisor)
        return mean.to(dtype) if out is None else out.copy_(mean)
    if out is None:
        out = tokens.new_empty(shape, dtype=dtype)
    _fill(out, tokens, start, _means(fine, coarse, start, scale), cols=fine.shape[2])
    return out


@dataclass(frozen=True, slots=True)
class _Means:
    """The coarse groups whose means are computed, and their members.

    Attributes:
        group: `[K]` rising, among the coarse groups.
        divisor: `[K, 1]` float32, patches of the group.
        first: `[K]` the group's first member, as a position in `member`.
        member: `[P]` rising, among the fine groups.
        weight: `[P]` float32, patches of the member, times its scale.
        whole: these are all groups; otherwise the rest are single tokens, to be copied.
    """

    group: Tensor
    divisor: Tensor
    first: Tensor
    member: Tensor
    weight: Tensor
    whole: bool


def _means(fine: MergePlan, coarse: MergePlan, start: Tensor, scale: Tensor | None) -> _Means:
    count = torch.diff(start, append=start.new_full((1,), fine.token_count))
    merged = count > 1
    in_merged = merged.repeat_interleave(count, output_size=fine.token_count)
    patches, divisor = fine.group_size.float(), coarse.group_size.float()
    if scale is None:
        group, member = merged.nonzero().squeeze(1), in_merged.nonzero().squeeze(1)
        first = count[group].cumsum(0) - count[group]
        return _Means(group, divisor[group, None], first, member, patches[member], whole=False)
    # A single token is scaled and nothing else, so that it is the same at every threshold.
    group, member = (torch.arange(plan.token_count, device=start.device) for plan in (coarse, fine))
    weight = torch.where(in_merged, patches * scale, scale)
    return _Means(group, torch.where(merged, divisor, 1.0)[:, None], start, member, weight, whole=True)


def _blocks(
    out: Tensor, tokens: Tensor, start: Tensor, means: _Means, rows: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, _Means]]:
    """Consecutive rows of the result and what goes into them, for about `rows` tokens each.

    Positions in `start` and in the means count from the block's beginning.
    """
    begin = torch.arange(0, tokens.shape[0], rows, device=start.device)
    coarse = torch.cat([torch.searchsorted(start, begin), start.new_full((1,), out.shape[0])])
    fine = torch.cat([start, start.new_full((1,), tokens.shape[0])])[coarse]
    group, member = torch.searchsorted(means.group, coarse), torch.searchsorted(means.member, fine)
    edges = torch.stack([coarse, fine, group, member])
    counts = torch.diff(edges)
    of_coarse, of_fine, of_group, of_member = counts.tolist()

    def within(values: Tensor, edge: Tensor, count: Tensor) -> Tensor:
        return values - edge[:-1].repeat_interleave(count, output_size=values.numel())

    parts = (
        torch.split(out, of_coarse),
        torch.split(tokens, of_fine),
        torch.split(within(start, fine, counts[0]), of_coarse),
        torch.split(within(means.group, coarse, counts[2]), of_group),
        torch.split(means.divisor, of_group),
        torch.split(within(means.first, member, counts[2]), of_group),
        torch.split(within(means.member, fine, counts[3]), of_member),
        torch.split(means.weight, of_member),
    )
    for rows_out, rows_in, starts, *block in zip(*parts, strict=True):
        groups, divisor, first, members, weight = block
        yield rows_out, rows_in, starts, _Means(groups, divisor, first, members, weight, means.whole)


def _fill(out: Tensor, tokens: Tensor, start: Tensor, means: _Means, cols: int) -> None:
    """A copy of each group's first token, and the means in their places, block by block."""
    block_bytes = _CPU_BLOCK_BYTES if tokens.device.type == "cpu" else _BLOCK_BYTES
    # No group is longer than a row of the grid, so that every block but the last begins one.
    rows = max(block_bytes // (4 * max(1, tokens.shape[1])), cols)
    scratch = _Scratch(tokens, rows + cols)
    for rows_out, rows_in, starts, block in _blocks(out, tokens, start, means, rows):
        if not means.whole:
            _take_rows(rows_out, rows_in, starts)
        if block.group.numel():
            values = scratch.get(rows_in, torch.float32)
            mean = segment_sum(values, block.first, block.weight, rows=block.member).div_(block.divisor)
            if means.whole:
                rows_out.copy_(mean)
            else:
                _put_rows(rows_out, block.group, scratch.get(mean, out.dtype))


class _Scratch:
    """Casts of one block after the other into the same memory, which is still in the cache."""

    def __init__(self, like: Tensor, rows: int) -> None:
        self._like, self._rows = like, rows
        self._memory: dict[torch.dtype, Tensor] = {}

    def get(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """`values` in `dtype`, valid until the next call for this dtype."""
        if values.dtype == dtype:
            return values
        if dtype not in self._memory:
            self._memory[dtype] = self._like.new_empty((self._rows, self._like.shape[1]), dtype=dtype)
        return self._memory[dtype][: values.shape[0]].copy_(values)


def _take_rows(out: Tensor, values: Tensor, index: Tensor) -> None:
    """`out[:] = values[index]`, cast."""
    if out.dtype == values.dtype:
        torch.index_select(values, 0, index, out=out)
    else:
        out.copy_(values.index_select(0, index))


def _put_rows(out: Tensor, index: Tensor, values: Tensor) -> None:
    """`out[index] = values`, of the same dtype."""
    width = out.shape[1] * out.element_size()
    whole = width % 16 == 0 and out.storage_offset() * out.element_size() % 16 == 0
    if whole and out.device.type == "cpu":
        # Elements are copied one by one, so sixteen bytes at a time.
        out, values = out.view(torch.complex128), values.view(torch.complex128)
    out.index_copy_(0, index, values)
