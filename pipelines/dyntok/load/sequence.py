"""Where the tokens and markers of a video stand in a sample's sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dyntok.errors import UsageError
from dyntok.merging import MarkerMode, VideoTokens, marker_count

IGNORED_LABEL = -100


@dataclass(frozen=True, slots=True)
class Conversation:
    """A tokenised text about one video.

    Attributes:
        id: the video's id.
        input_ids: `[L]` int64, with exactly one placeholder where the video goes.
        labels: `[L]` int64, -100 where nothing is to be learned (the prompt).
        video: what takes the placeholder's place.
        position: in the epoch of a `TokenStream`; None elsewhere.
    """

    id: str
    input_ids: Tensor
    labels: Tensor
    video: VideoTokens
    position: int | None = None


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A conversation with room for its video.

    Attributes:
        input_ids: `[S]`, the placeholder's id at every visual and marker position.
        labels: `[S]`, -100 at these.
        visual_tokens: `[N, D]`.
        visual_index: `[N]` positions of the tokens in the sequence.
        marker_index: `[M]` positions of the markers.
        position: as in the conversation.
    """

    id: str
    input_ids: Tensor
    labels: Tensor
    visual_tokens: Tensor
    visual_index: Tensor
    marker_index: Tensor
    position: int | None = None

    def __len__(self) -> int:
        return self.input_ids.numel()


def span_positions(video: VideoTokens, markers: MarkerMode) -> tuple[Tensor, Tensor]:
    """Positions `[N]` of the tokens and `[M]` of the markers in a video's span of N + M; both int64."""
    frames, rows, _ = video.similarity.shape
    splits = video.row_splits.long()
    ends = {"row": splits[1:], "frame": splits[::rows][1:], "video": splits[-1:], "none": splits[:0]}
    if marker_count(markers, frames, rows) != ends[markers].numel():
        raise UsageError(f"row_splits of {splits.numel() - 1} rows do not fit {frames} frames of {rows} rows")
    after = ends[markers].contiguous()
    tokens = torch.arange(len(video))
    return tokens + torch.searchsorted(after, tokens, right=True), after + torch.arange(after.numel())


def expand(conversation: Conversation, placeholder_id: int, markers: MarkerMode = "row") -> TokenSequence:
    """Replace the placeholder by the video's span.

    Raises:
        UsageError: the text does not hold exactly one placeholder, or labels do not fit it.
    """
    ids, labels = conversation.input_ids, conversation.labels
    if ids.shape != labels.shape or ids.ndim != 1:
        raise UsageError(f"{conversation.id}: input_ids {list(ids.shape)} and labels {list(labels.shape)} differ")
    found = (ids == placeholder_id).nonzero().flatten()
    if found.numel() != 1:
        raise UsageError(
            f"{conversation.id}: the text holds {found.numel()} placeholders, not one",
            hint=f"put the token {placeholder_id} where the video goes",
        )
    at = int(found)
    visual, marker = span_positions(conversation.video, markers)
    span = visual.numel() + marker.numel()
    return TokenSequence(
        id=conversation.id,
        input_ids=torch.cat([ids[:at], ids.new_full((span,), placeholder_id), ids[at + 1 :]]),
        labels=torch.cat([labels[:at], labels.new_full((span,), IGNORED_LABEL), labels[at + 1 :]]),
        visual_tokens=conversation.video.tokens,
        visual_index=visual + at,
        marker_index=marker + at,
        position=conversation.position,
    )
