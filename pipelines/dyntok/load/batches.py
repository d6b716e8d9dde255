"""Sequences into batches of plain tensors, padded or packed, and the splice that makes `inputs_embeds` of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dyntok.errors import UsageError
from dyntok.load.sequence import IGNORED_LABEL, TokenSequence

Batch = dict[str, Any]


def pad_batch(
    sequences: Sequence[TokenSequence], pad_id: int = 0, *, side: Literal["right", "left"] = "right"
) -> Batch:
    """One row a sequence, padded on the right (training) or on the left (`generate`).

    Returns:
        `input_ids`, `labels`, `position_ids`, `attention_mask`: `[B, L]`; `visual_tokens [N, D]` and N again as
        `visual_count`; `visual_index [N]` and `marker_index [M]`: positions in the flattened `B*L`; and `position [B]`,
        if the sequences come from a `TokenStream`.
    """
    if side not in ("right", "left"):
        raise UsageError(f"padding goes to the right or the left, not {side!r}")
    if not sequences:
        raise UsageError("a batch holds at least one sequence")
    length = max(len(sequence) for sequence in sequences)
    shape = (len(sequences), length)
    batch = {
        "input_ids": torch.full(shape, pad_id),
        "labels": torch.full(shape, IGNORED_LABEL),
        "position_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.zeros(shape, dtype=torch.int64),
    }
    starts = [0 if side == "right" else length - len(sequence) for sequence in sequences]
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        here = slice(start, start + len(sequence))
        batch["input_ids"][row, here] = sequence.input_ids
        batch["labels"][row, here] = sequence.labels
        batch["position_ids"][row, here] = torch.arange(len(sequence))
        batch["attention_mask"][row, here] = 1
    offsets = [row * length + start for row, start in enumerate(starts)]
    return {**batch, **_visual(sequences, offsets), **_position(sequences)}


def pack_batch(sequences: Sequence[TokenSequence]) -> Batch:
    """All sequences end to end in one row, as variable-length attention takes them.

    Returns:
        `input_ids`, `labels`, `position_ids`: `[1, S]`, positions restart with each sequence; `cu_seq_lens_q`,
        `cu_seq_lens_k`: `[n + 1]` int32; `max_length_q`, `max_length_k`: int; the visual part and `position [n]` as
        `pad_batch`. The first label of each sequence is -100, so that no sequence is asked to predict the next one's
        beginning.
    """
    if not sequences:
        raise UsageError("a batch holds at least one sequence")
    sizes = torch.tensor([len(sequence) for sequence in sequences])
    ends = sizes.cumsum(0)
    splits = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
    labels = torch.cat([sequence.labels for sequence in sequences])
    labels[splits[:-1]] = IGNORED_LABEL
    return {
        "input_ids": torch.cat([sequence.input_ids for sequence in sequences])[None],
        "labels": labels[None],
        "position_ids": torch.cat([torch.arange(len(sequence)) for sequence in sequences])[None],
        "cu_seq_lens_q": splits.int(),
        "cu_seq_lens_k": splits.int(),
        "max_length_q": int(sizes.max()),
        "max_length_k": int(sizes.max()),
        **_visual(sequences, splits[:-1].tolist()),
        **_position(sequences),
    }


def splice(
    batch: Mapping[str, Any],
    embed_tokens: Callable[[Tensor], Tensor],
    row_marker: Tensor | None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`inputs_embeds [B, L, D]` of a batch, on its device: text embeddings with the video put in by one scatter.

    Differentiable in the embeddings, in `visual_tokens`, in `row_marker` and through `project`.

    Args:
        batch: from `pad_batch` or `pack_batch`.
        embed_tokens: the LLM's input embedding; never asked for a placeholder's id.
        row_marker: `[D]`; may be None where the batch has no markers.
        project: makes `[N, D]` of the stored `[N, F]`, for stores in space `vision` (`VisionProjector`).

    Raises:
        UsageError: markers are needed and none is given, the dimensions differ, or a part of the batch is missing.
    """
    ids, tokens = batch["input_ids"], batch["visual_tokens"]
    if batch["visual_count"] != len(tokens):
        raise UsageError(
            f"the batch was made with {batch['visual_count']} visual tokens and came with {len(tokens)}",
            hint="something cut its tensors by rows: with accelerate, set dispatch_batches=False",
        )
    where = torch.cat([batch["visual_index"], batch["marker_index"]])
    text = ids.flatten().index_fill(0, where, 0).view_as(ids)
    embeds = embed_tokens(text)
    tokens = tokens.to(embeds.dtype)
    parts = [tokens if project is None else project(tokens).to(embeds.dtype)]
    markers = batch["marker_index"].numel()
    if markers:
        if row_marker is None:
            raise UsageError(
                f"the batch has {markers} markers and no row marker was given",
                hint='pass store.row_marker or a parameter, or expand with markers="none"',
            )
        parts.append(row_marker.to(embeds).expand(markers, -1))
    if any(part.shape[1] != embeds.shape[-1] for part in parts):
        raise UsageError(
            f"tokens of {[part.shape[1] for part in parts]} dimensions do not fit embeddings of {embeds.shape[-1]}",
            hint="use the LLM of the checkpoint that the store was made with; in space vision, pass its projector",
        )
    return embeds.flatten(0, 1).index_copy(0, where, torch.cat(parts)).view_as(embeds)


def _visual(sequences: Sequence[TokenSequence], offsets: list[int]) -> Batch:
    pairs = list(zip(sequences, offsets, strict=True))
    return {
        "visual_count": sum(len(sequence.visual_tokens) for sequence in sequences),
        "visual_tokens": torch.cat([sequence.visual_tokens for sequence in sequences]),
        "visual_index": torch.cat([sequence.visual_index + offset for sequence, offset in pairs]),
        "marker_index": torch.cat([sequence.marker_index + offset for sequence, offset in pairs]),
    }


def _position(sequences: Sequence[TokenSequence]) -> Batch:
    positions = [sequence.position for sequence in sequences]
    return {} if None in positions else {"position": torch.tensor(positions)}
