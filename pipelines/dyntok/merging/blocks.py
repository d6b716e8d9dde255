"""Passes over patches that stay in the cache of a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# float32 bytes in work at a time, for each thread: they and what is made of them fit a core's cache.
_CACHE_BYTES = 2**21


def rows_at_once(values: Tensor) -> int:
    """How many rows of `values: [T, R, C, ...]` to work on at a time, of all frames' `T * R`; all, if there are fewer.

    All of them on other devices, where many small steps would cost more than they save; where gradients are asked
    for; and where the memory is not in order.
    """
    rows = max(1, values.shape[0] * values.shape[1])
    with_gradients = torch.is_grad_enabled() and values.requires_grad
    if values.device.type != "cpu" or with_gradients or not values.is_contiguous() or not values.numel():
        return rows
    row_bytes = 4 * (values.numel() // rows)
    return min(rows, max(1, _CACHE_BYTES * torch.get_num_threads() // row_bytes))


def float_blocks(values: Tensor, at_once: int) -> Iterator[Tensor]:
    """`values: [N, ...]` as float32, `at_once` of them at a time.

    If that is all, they are `values` themselves where these are float32. Else they lie in memory of their own, which
    may be overwritten, and are valid until the next.
    """
    if at_once >= len(values):
        yield values.float()
        return
    # The same memory every time: it is in the cache, and need not be had from the system.
    scratch = values.new_empty((at_once, *values.shape[1:]), dtype=torch.float32)
    for block in torch.split(values, at_once):
        yield scratch[: len(block)].copy_(block)


def largest_magnitude(values: Tensor, *, keepdim: bool = False) -> Tensor:
    """Largest absolute value along the last dimension; NaN where there is one.

    It is `vector_norm` of order infinity, which torch computes one value at a time on CPUs: ten times as slow.
    """
    return torch.maximum(values.amax(-1, keepdim), values.amin(-1, keepdim).neg())
