"""Batches up to a number of tokens, out of a stream: packed end to end, or padded among alike lengths."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor
from torch.utils.data import IterableDataset

from dyntok.errors import UsageError
from dyntok.load.batches import Batch, pack_batch, pad_batch
from dyntok.load.cursor import Resumable
from dyntok.load.grouping import pack_lengths, pad_lengths
from dyntok.load.order import order_key, permutation
from dyntok.load.sequence import Conversation, TokenSequence, expand
from dyntok.load.stream import Draft, TokenStream

log = logging.getLogger("dyntok")


class TextEncoder(Protocol):
    """What makes token ids of an annotation; `ChatTokenizer` is one."""

    placeholder_id: int

    def text(self, annotation: Mapping[str, Any] | None, video_id: str) -> tuple[Tensor, Tensor]:
        """`input_ids` and `labels`, both `[L]` int64, with one placeholder."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A sequence before its tokens are read: which step, its text, how long."""

    step: int
    draft: Draft
    input_ids: Tensor
    labels: Tensor
    length: int


class BatchStream(Resumable, IterableDataset[Batch]):
    """Batches of a stream's sequences, of at most `max_tokens` each. For a DataLoader with `batch_size=None`.

    A window of samples is planned from texts and similarity maps; tokens are read when their batch is due, so memory
    holds one batch. A resumed stream makes the same batches as one that never stopped.

    A batch is that of `pack_batch` or `pad_batch`, with `position` and `ids` of its samples, `waste` (the part of it
    that holds nothing: of `max_tokens` when packed, of the padded rectangle otherwise) and, under `dropped`, what was
    too long since the batch before: pairs of id and length.

    Args:
        stream: without a transform.
        encode_text: a `ChatTokenizer`, or another `TextEncoder`.
        max_tokens: most positions of a batch: text, tokens and markers, and padding.
        packed: one row end to end, for variable-length attention; otherwise rows padded to the longest.
        window: samples planned together. More waste less, and mix lengths less evenly.
        pad_id: id of padding.
        too_long: what to do with a sequence longer than `max_tokens`: `raise` a UsageError, or `drop` it and log a
            warning.
    """

    def __init__(
        self,
        stream: TokenStream[Any],
        encode_text: TextEncoder,
        *,
        max_tokens: int,
        packed: bool = True,
        window: int = 256,
        pad_id: int = 0,
        too_long: Literal["raise", "drop"] = "raise",
    ) -> None:
        if stream.transform is not None:
            raise UsageError("the stream has a transform", hint="leave it out: batches are made of plain samples")
        if max_tokens < 1 or window < 1 or too_long not in ("raise", "drop"):
            raise UsageError(f"max_tokens={max_tokens}, window={window}, too_long={too_long!r}: no such choice")
        self.stream, self.cursor = stream, stream.cursor
        self.encode_text = encode_text
        self.max_tokens, self.packed, self.window = max_tokens, packed, window
        self.pad_id, self.too_long = pad_id, too_long

    def __iter__(self) -> Iterator[Batch]:
        cursor = self.cursor
        steps = cursor.begin()
        dropped: list[tuple[str, int]] = []
        for first in range(0, len(steps), self.window):
            window = steps[first : first + self.window]
            if all(cursor.is_seen(step) for step in window):
                continue
            planned: list[_Planned] = []
            for step in window:
                plan = self._plan(step)
                if plan is not None and plan.length <= self.max_tokens:
                    planned.append(plan)
                elif not cursor.is_seen(step):
                    dropped += [] if plan is None else [self._drop(plan)]
                    cursor.seen(step)
            for members in self._groups(planned):
                unseen = [plan for plan in members if not cursor.is_seen(plan.step)]
                sequences = [sequence for plan in unseen if (sequence := self._sequence(plan)) is not None]
                for plan in unseen:
                    cursor.seen(plan.step)
                if sequences:
                    yield {**self._batch(sequences), "dropped": dropped}
                    dropped = []

    def _plan(self, step: int) -> _Planned | None:
        """None where the sample is damaged and is to be skipped."""
        draft = self.stream.draft(step)
        if draft is None:
            return None
        ids, labels = self.encode_text.text(draft.annotation, draft.stored.id)
        # The placeholder gives way to the video.
        return _Planned(step, draft, ids, labels, len(ids) - 1 + len(draft.selection))

    def _drop(self, plan: _Planned) -> tuple[str, int]:
        video_id = plan.draft.stored.id
        if self.too_long == "raise":
            raise UsageError(
                f"{video_id} makes a sequence of {plan.length}, more than max_tokens={self.max_tokens}",
                hint='give the stream a budget, a lower threshold or frames="fit"; or too_long="drop"',
            )
        log.warning("%s is dropped: a sequence of %d, more than %d", video_id, plan.length, self.max_tokens)
        return video_id, plan.length

    def _groups(self, planned: Sequence[_Planned]) -> Iterator[list[_Planned]]:
        """The window's batches, in an order that does not follow their lengths."""
        lengths = [plan.length for plan in planned]
        groups = (pack_lengths if self.packed else pad_lengths)(lengths, self.max_tokens)
        key = order_key("batches", self.stream.seed, self.cursor.reading, planned[0].step if planned else 0)
        for number in permutation(len(groups), key):
            yield [planned[place] for place in groups[number]]

    def _sequence(self, plan: _Planned) -> TokenSequence | None:
        sample = self.stream.load(plan.draft)
        if sample is None:
            return None
        talk = Conversation(sample.id, plan.input_ids, plan.labels, sample.video, sample.position)
        return expand(talk, self.encode_text.placeholder_id, sample.markers)

    def _batch(self, sequences: list[TokenSequence]) -> Batch:
        batch = pack_batch(sequences) if self.packed else pad_batch(sequences, self.pad_id)
        size = self.max_tokens if self.packed else batch["input_ids"].numel()
        used = sum(len(sequence) for sequence in sequences)
        return {**batch, "ids": [sequence.id for sequence in sequences], "waste": 1 - used / size}
