"""The record of a video's tokens."""

from __future__ import annotations

import torch

from dyntok.merging import merge


def test_a_videos_tokens_say_how_many_they_are_and_of_what() -> None:
    features = torch.randn(2, 3, 5, 4).cumsum(2)
    video = merge(torch.randn(2, 3, 5, 8).bfloat16(), features, 0.25)
    assert len(video) == len(video.tokens) == len(video.group_size)
    assert repr(video) == (f"VideoTokens(tokens=[{len(video)}, 8] torch.bfloat16, frames=2, grid=3x5, threshold=0.25)")
    assert (video.grid, video.threshold) == ((3, 5), 0.25)
    assert torch.equal(video.similarity[..., 0], torch.full((2, 3), -torch.inf))
    assert video.frame_index is None
    assert video.frame_pts is None


def test_a_videos_row_markers_stand_after_each_row() -> None:
    video = merge(torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 4), 0.2)
    sequence: list[str] = []
    for tokens in video.row_splits.diff().tolist():
        sequence += ["token"] * tokens + ["marker"]
    assert video.row_marker_index.tolist() == [at for at, what in enumerate(sequence) if what == "marker"]
