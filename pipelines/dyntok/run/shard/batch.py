"""From a batch of encoded frames to stored tokens: the plan, the merge, the cast, the way to the host."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dyntok.errors import NonFiniteFeatureError
from dyntok.merging import MergePlan, coarsen, largest_magnitude, left_similarity, plan_from_similarity

LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True, slots=True)
class BatchLevel:
    """Tokens of a batch at one threshold, in the stored dtype (bfloat16 as uint16 bit patterns).

    `tokens: [N, D]`; `scale: [N] float32` for int8; `frame_splits: [B + 1]` tokens per frame, as prefix sums.
    """

    tokens: npt.NDArray[Any]
    scale: npt.NDArray[np.float32] | None
    frame_splits: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergedBatch:
    """`similarity: [B, R, C]`, the levels from the finest on, and the frames whose numbers are not finite."""

    similarity: npt.NDArray[np.float32]
    levels: tuple[BatchLevel, ...]
    bad_frames: frozenset[int]


class BatchMerger:
    """Merges batches at the given thresholds, which fall: the first is the stored one, others are explicit levels."""

    def __init__(self, thresholds: tuple[float, ...], dtype: str) -> None:
        self._thresholds = thresholds
        self._dtype = dtype

    def __call__(self, features: Tensor, tokens: Tensor) -> MergedBatch:
        """`features: [B, R, C, F]` float32 and `tokens: [B, R, C, D]`, on any device."""
        with torch.inference_mode():
            return self._merge(features, tokens)

    def _merge(self, features: Tensor, tokens: Tensor) -> MergedBatch:
        bad: set[int] = set()
        try:
            similarity = left_similarity(features)
        except NonFiniteFeatureError:
            broken = ~torch.isfinite(features).flatten(1).all(1)
            bad.update(broken.nonzero().flatten().tolist())
            similarity = left_similarity(features.masked_fill(broken[:, None, None, None], 0.0))
        stored, *lower = self._thresholds
        fine = plan_from_similarity(similarity, stored)
        if lower:
            means = fine.apply(tokens)
            level, largest = self._level([means], fine)
            plans = [plan_from_similarity(similarity, threshold) for threshold in lower]
            levels = [level, *(self._level([coarsen(means, fine, plan)], plan)[0] for plan in plans)]
        else:
            # Means are cast as they come, while they are in the cache.
            level, largest = self._level(fine.means(tokens), fine)
            levels = [level]
        limit = LARGEST_FLOAT16 if self._dtype == "float16" else torch.finfo(torch.float32).max
        bad.update(self._frames_of(fine, ~(largest <= limit)))
        host = iter(to_host([similarity, *(tensor for level in levels for tensor in level)]))
        return MergedBatch(
            next(host).numpy(),
            tuple(_batch_level([next(host) for _ in level]) for level in levels),
            frozenset(bad),
        )

    @staticmethod
    def _frames_of(plan: MergePlan, token_mask: Tensor) -> list[int]:
        hit = token_mask.nonzero().flatten()
        patches_per_frame = plan.shape[1] * plan.shape[2]
        frames = torch.div(plan.group_start[hit], patches_per_frame, rounding_mode="floor")
        return sorted(set(frames.tolist()))

    def _level(self, pieces: Iterable[Tensor], plan: MergePlan) -> tuple[list[Tensor], Tensor]:
        """What a `BatchLevel` is made of, from float32 means `[n, D]` that come in pieces; and each one's magnitude."""
        magnitudes: list[Tensor] = []

        def stored() -> Iterator[list[Tensor]]:
            for means in pieces:
                magnitudes.append(largest_magnitude(means))
                yield to_stored_dtype(means, magnitudes[-1], self._dtype)

        parts = _joined(stored(), plan.token_count)
        return [plan.row_splits[:: plan.shape[1]], *parts], torch.cat(magnitudes)


def _batch_level(tensors: list[Tensor]) -> BatchLevel:
    splits, tokens, *scales = tensors
    # numpy has no bfloat16.
    bits = tokens.view(torch.uint16) if tokens.dtype == torch.bfloat16 else tokens
    return BatchLevel(bits.numpy(), scales[0].numpy() if scales else None, splits.numpy())


def to_stored_dtype(means: Tensor, largest: Tensor, dtype: str) -> list[Tensor]:
    """Float32 `means: [N, D]` cast once to the stored dtype; for int8, `[tokens, scale]`.

    For int8, `scale = largest / 127` per token and `tokens = round(means / scale)`; a zero token has scale 1.
    """
    if dtype == "int8":
        scale = torch.where(largest > 0, largest / 127.0, 1.0)
        return [(means / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale]
    return [means.to(getattr(torch, dtype))]


def _joined(pieces: Iterator[list[Tensor]], count: int) -> list[Tensor]:
    """Tensors of `count` rows from pieces of each, which go to their places while they are in the cache."""
    first = next(pieces)
    if len(first[0]) == count:
        return first
    whole = [piece.new_empty((count, *piece.shape[1:])) for piece in first]
    done = 0
    for piece in itertools.chain([first], pieces):
        end = done + len(piece[0])
        for target, values in zip(whole, piece, strict=True):
            target[done:end] = values
        done = end
    return whole


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
