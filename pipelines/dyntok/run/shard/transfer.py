"""Streams of a thread's own, and results from the device to the host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def own_stream(device: torch.device) -> AbstractContextManager[object]:
    """Within it, what the calling thread asks of a CUDA device waits for nothing that other threads asked for."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in the host's memory. From CUDA they all come in one go, through pinned memory."""
    if not any(tensor.is_cuda for tensor in tensors):
        return [tensor.cpu() for tensor in tensors]
    copies = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        for tensor in tensors
    ]
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return copies
