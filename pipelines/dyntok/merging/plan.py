"""Plan, then apply: which patches form a group, and the mean of any tensor over the groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dyntok.errors import MergeError
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

    @property
    def row_marker_index(self) -> Tensor:
        """`[T*R]` int64, position of each row's marker in the sequence of tokens and markers."""
        return self.row_splits[1:] + torch.arange(self.row_splits.numel() - 1, device=self.row_splits.device)

    def apply(self, values: Tensor) -> Tensor:
        """Mean of `values: [T, R, C, ...]` over each group, `[N, ...]` float32.

        Each group is summed left to right by one thread, so the result depends neither on the number of threads
        nor on other frames of the batch.
        """
        if tuple(values.shape[:3]) != self.shape:
            raise MergeError(
                f"the plan is for {list(self.shape)} patches, the tensor has {list(values.shape[:3])}"
            )
        trailing = values.shape[3:]
        flat = values.reshape(self.shape[0] * self.shape[1] * self.shape[2], -1).float()
        mean = segment_sum(flat, self.group_start).div_(self.group_size[:, None])
        return mean.reshape(-1, *trailing)


def segment_sum(
    values: Tensor, starts: Tensor, weights: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
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
    begins = (similarity > threshold).logical_not_()
    begins[:, :, 0].fill_(True)
    start = begins.flatten().nonzero().squeeze(1)
    row_start = torch.arange(0, similarity.numel() + 1, cols, device=start.device)
    group_edges = torch.cat([start, row_start[-1:]])
    row_splits = torch.searchsorted(start, row_start)
    return MergePlan((frames, rows, cols), start, torch.diff(group_edges), row_splits)


def plan_merge(features: Tensor, threshold: float) -> MergePlan:
    """Plan from features `[T, R, C, F]`. Raises as `left_similarity` does."""
    return plan_from_similarity(left_similarity(features), threshold)
