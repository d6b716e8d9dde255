"""The merged tokens of one video, and the operator as one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dyntok.errors import MergeError
from dyntok.merging.plan import plan_from_similarity
from dyntok.merging.similarity import left_similarity

MarkerMode = Literal["row", "frame", "video", "none"]
MARKER_MODES: tuple[MarkerMode, ...] = get_args(MarkerMode)


@dataclass(frozen=True, slots=True)
class VideoTokens:
    """Tokens of one video at one threshold.

    Attributes:
        tokens: `[N, D]`.
        group_size: `[N]` patches behind each token.
        row_splits: `[T*R + 1]` prefix sums of tokens per row.
        similarity: `[T, R, C]` float32, -inf in column 0.
        grid: (R, C).
        threshold: patches merged where similarity > threshold.
        frame_index: `[T]` int64 frame numbers in the source, None for tensors in memory.
        frame_pts: `[T]` float64 seconds, None for tensors in memory.
    """

    tokens: Tensor
    group_size: Tensor
    row_splits: Tensor
    similarity: Tensor
    grid: tuple[int, int]
    threshold: float
    frame_index: Tensor | None = None
    frame_pts: Tensor | None = None

    @property
    def row_marker_index(self) -> Tensor:
        """`[T*R]` position of each row's marker in the sequence of tokens and markers."""
        splits = self.row_splits
        return splits[1:] + torch.arange(len(splits) - 1, device=splits.device)

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __repr__(self) -> str:
        frames = self.similarity.shape[0]
        return (
            f"VideoTokens(tokens={list(self.tokens.shape)} {self.tokens.dtype}, frames={frames}, "
            f"grid={self.grid[0]}x{self.grid[1]}, threshold={self.threshold:g})"
        )


def merge(tokens: Tensor, features: Tensor, threshold: float) -> VideoTokens:
    """Merge the tokens of a video in memory.

    Args:
        tokens: `[T, R, C, D]`, H in the paper: what the projector gives.
        features: `[T, R, C, F]`, X in the paper: what the vision tower gives, pooled to the same grid.
        threshold: merge a patch with its left neighbour where their cosine similarity exceeds this.

    Returns:
        Tokens in the dtype of `tokens`; means are taken in float32 and cast once.

    Raises:
        MergeError: shapes do not fit, or a frame has non-finite features.
    """
    if tokens.ndim != 4 or tokens.shape[:3] != features.shape[:3]:
        raise MergeError(
            f"tokens [T, R, C, D] and features [T, R, C, F] must share T, R and C: "
            f"{list(tokens.shape)} and {list(features.shape)}"
        )
    similarity = left_similarity(features)
    plan = plan_from_similarity(similarity, threshold)
    return VideoTokens(
        tokens=plan.apply(tokens, tokens.dtype),
        group_size=plan.group_size,
        row_splits=plan.row_splits,
        similarity=similarity,
        grid=(plan.shape[1], plan.shape[2]),
        threshold=threshold,
    )


def marker_count(mode: MarkerMode, frames: int, rows: int) -> int:
    """Markers that `mode` inserts: one after each row, after each frame, after the video, or none."""
    counts = {"row": frames * rows, "frame": frames, "video": 1, "none": 0}
    if mode not in counts:
        raise MergeError(f"unknown marker mode {mode!r}", hint=f"one of {', '.join(MARKER_MODES)}")
    return counts[mode]
