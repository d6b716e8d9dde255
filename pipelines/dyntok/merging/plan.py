"""Plan, then apply: which patches form a group, and the mean of any tensor over the groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dyntok.boundaries import torch_boundaries
from dyntok.errors import MergeError
from dyntok.merging.blocks import float_blocks, rows_at_once
from dyntok.merging.similarity import left_similarity


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Groups of patches for one threshold; the same plan merges tokens, features or provenance.

    Attributes:
        shape: (T, R, C).
        group_start: `[N]` int64, each group's first patch, counted over the flattened `T*R*C` patches.
        group_size: `[N]` int64, patches in the group, 1..C.
        row_splits: `[T*R + 1]` int64, prefix sums of the groups per row.
    """

    shape: tuple[int, int, int]
    group_start: Tensor
    group_size: Tensor
    row_splits: Tensor

    @property
    def token_count(self) -> int:
        return self.group_start.numel()

    def apply(self, values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Mean of `values: [T, R, C, ...]` over each group, `[N, ...]`; taken in float32 and cast once to `dtype`.

        Each group is summed left to right by one thread, so the result depends neither on the number of threads
        nor on other frames of the batch.
        """
        pieces = self.means(values)
        first = next(pieces)
        if len(first) == self.token_count:
            return first.to(dtype)
        result = first.new_empty((self.token_count, *first.shape[1:]), dtype=dtype)
        done = 0
        for piece in itertools.chain([first], pieces):
            result[done : done + len(piece)] = piece
            done += len(piece)
        return result

    def means(self, values: Tensor) -> Iterator[Tensor]:
        """As `apply` in float32, piece by piece `[n, ...]` in order: of a size for the cache on CPUs, whole elsewhere.

        Raises MergeError if `values` are over other patches.
        """
        if tuple(values.shape[:3]) != self.shape:
            raise MergeError(f"the plan is for {list(self.shape)} patches, the tensor has {list(values.shape[:3])}")
        trailing, cols = values.shape[3:], self.shape[2]
        rows, all_rows = rows_at_once(values), self.shape[0] * self.shape[1]
        edges, start = [0, self.token_count], self.group_start
        if rows < all_rows:
            edges = [*self.row_splits[:all_rows:rows].tolist(), self.token_count]
            start = start % (rows * cols)
        size = self.group_size.float()[:, None]
        flat = values.reshape(all_rows * cols, math.prod(trailing))
        blocks = float_blocks(flat, rows * cols)
        for block, (first, end) in zip(blocks, itertools.pairwise(edges), strict=True):
            mean = segment_sum(block, start[first:end]).div_(size[first:end])
            yield mean.reshape(end - first, *trailing)


def segment_sum(values: Tensor, starts: Tensor, weights: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    """Sums of consecutive rows of `values: [P, D]`; segment i begins at `starts[i]` and ends at the next start.

    `rows` chooses rows and their order; `weights`, one for each, multiply them first. Deterministic on CPU and CUDA,
    unlike `index_add`.
    """
    if rows is None:
        rows = torch.arange(values.shape[0], device=values.device)
    return torch.nn.functional.embedding_bag(rows, values, starts, mode="sum", per_sample_weights=weights)


def plan_from_similarity(similarity: Tensor, threshold: float) -> MergePlan:
    """Plan from a similarity map `[T, R, C]`; patches merge where `similarity > threshold` (as float32)."""
    if similarity.ndim != 3:
        raise MergeError(f"a similarity map is [T, R, C], got {list(similarity.shape)}")
    if threshold != threshold:
        raise MergeError("the threshold is not a number")
    frames, rows, cols = similarity.shape
    start = torch_boundaries(similarity, threshold).flatten().nonzero().squeeze(1)
    row_start = torch.arange(0, similarity.numel() + 1, cols, device=start.device)
    group_edges = torch.cat([start, row_start[-1:]])
    row_splits = torch.searchsorted(start, row_start)
    return MergePlan((frames, rows, cols), start, torch.diff(group_edges), row_splits)


def plan_merge(features: Tensor, threshold: float) -> MergePlan:
    """Plan from features `[T, R, C, F]`. Raises as `left_similarity` does."""
    return plan_from_similarity(left_similarity(features), threshold)
