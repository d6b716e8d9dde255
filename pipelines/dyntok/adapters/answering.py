"""Answers questions about stored videos with the language model of a LLaVA checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dyntok.adapters.huggingface import TokenLM
from dyntok.errors import UsageError
from dyntok.load import Conversation, Store, TokenSequence, expand, pad_batch
from dyntok.load.access import TORCH_DTYPES
from dyntok.load.chat import CHATML, ChatTokenizer, Message, render
from dyntok.load.sequence import IGNORED_LABEL
from dyntok.merging import MarkerMode

PLACEHOLDER_ID = -200
_PROBE = "zebra"


@dataclass(frozen=True, slots=True)
class Question:
    """A text, and the id of the stored video that it is about; None where it is about none."""

    text: str
    video_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and how many tokens it read (video and markers included) and wrote."""

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class View:
    """How a stored video is shown to the model: the arguments of `StoredVideo.at`."""

    threshold: float | None = None
    budget: int | None = None
    frames: int | Literal["fit"] | None = None
    markers: MarkerMode = "row"


@dataclass(frozen=True, slots=True)
class Generation:
    """How to generate: `settings` go to `generate`; an answer ends before the first of the `stop` strings."""

    settings: Mapping[str, Any]
    stop: tuple[str, ...] = ()

    def cut(self, text: str) -> str:
        """The text up to the first stop string, without white space around it."""
        ends = [text.find(stop) for stop in self.stop if stop in text]
        return text[: min(ends, default=len(text))].strip()


class Answerer:
    """Reads videos from a store and answers questions about them, in batches.

    Args:
        store: the videos.
        lm: the language model, with what turns tokens into embeddings.
        tokenizer: the model's own. Without a chat template that takes plain text, ChatML is used.
        view: how videos are shown.
        system_prompt: begins every conversation, if given.
    """

    def __init__(self, store: Store, lm: TokenLM, tokenizer: Any, view: View, system_prompt: str | None = None) -> None:
        if not takes_text(tokenizer):
            tokenizer.chat_template = CHATML
        self.store = store
        self.lm = lm
        self.tokenizer = tokenizer
        self.view = view
        self._chat = ChatTokenizer(tokenizer, PLACEHOLDER_ID)
        self._system: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
        self._ends = self._end_ids()
        self._pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends)

    def generate(self, questions: Sequence[Question], generation: Generation) -> list[Answer]:
        """Answers in the order of the questions."""
        sequences = [self._sequence(question) for question in questions]
        more: dict[str, Any] = {}
        if generation.stop:
            more["stopping_criteria"] = [_stop_when_said(generation.stop, self.tokenizer)]
        with torch.inference_mode():
            ids = self.lm.generate(
                self._batch(sequences),
                pad_token_id=self._pad_id,
                eos_token_id=sorted(self._ends),
                **generation.settings,
                **more,
            )
        written = [self._until_end(row) for row in ids.tolist()]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            Answer(generation.cut(text), len(sequence), len(row))
            for text, sequence, row in zip(texts, sequences, written, strict=True)
        ]

    def losses(self, pairs: Sequence[tuple[Question, str]]) -> list[tuple[float, bool]]:
        """For each question and answer: the answer's loss, and whether greedy generation says it.

        The loss is the mean negative log-probability of the answer's tokens and its end of turn, as in training.
        """
        batch = self._batch([self._sequence(question, answer) for question, answer in pairs])
        labels = batch.pop("labels").to(self.lm.device)
        first = int((labels != IGNORED_LABEL).any(0).nonzero()[0])
        answers = labels[:, first:]
        with torch.inference_mode():
            output = self.lm.forward(**batch, logits_to_keep=answers.shape[1] + 1)
            logits = output.logits[:, :-1].float()
        learned = answers != IGNORED_LABEL
        said = logits.log_softmax(-1).gather(-1, answers.clamp(min=0)[..., None])[..., 0]
        losses = -(said * learned).sum(1) / learned.sum(1)
        ends = torch.isin(answers, torch.tensor(sorted(self._ends), device=answers.device))
        own = learned & (ends.cumsum(1) == 0)
        greedy = ((logits.argmax(-1) == answers) | ~own).all(1)
        return list(zip(losses.tolist(), greedy.tolist(), strict=True))

    def _sequence(self, question: Question, answer: str | None = None) -> TokenSequence:
        messages: list[Message] = [*self._system, {"role": "user", "content": question.text}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        about_video = question.video_id is not None
        if answer is not None:
            ids, labels = self._chat.encode(messages, video=about_video)
        else:
            ids = self._chat.prompt(messages, video=about_video)
            labels = torch.full_like(ids, IGNORED_LABEL)
        if question.video_id is None:
            nothing, info = torch.empty(0, dtype=torch.int64), self.store.info
            tokens = torch.empty(0, info.token_dim, dtype=TORCH_DTYPES[info.dtype])
            return TokenSequence("", ids, labels, tokens, visual_index=nothing, marker_index=nothing)
        video = self.store[question.video_id].at(**asdict(self.view))
        return expand(Conversation(question.video_id, ids, labels, video), PLACEHOLDER_ID, self.view.markers)

    def _batch(self, sequences: Sequence[TokenSequence]) -> dict[str, Any]:
        return pad_batch(sequences, self._pad_id, side="left")

    def _end_ids(self) -> set[int]:
        """Ids that end an answer: the tokenizer's and the model's own, and what the template puts after a turn."""
        turn = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        _, labels = self._chat.encode(turn, video=False)
        ends = set(labels.tolist()) & set(self.tokenizer.all_special_ids)
        for source in (self.tokenizer, self.lm.model.generation_config):
            ids = source.eos_token_id
            ends |= set() if ids is None else set(ids) if isinstance(ids, list) else {ids}
        if not ends:
            raise UsageError(
                "nothing ends an answer: neither the tokenizer nor the model has an end-of-sequence token",
                hint="set tokenizer.eos_token",
            )
        return ends

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = {*self._ends, self._pad_id}
        return ids[: next((at for at, value in enumerate(ids) if value in ends), len(ids))]


def takes_text(tokenizer: Any) -> bool:
    """Whether there is a chat template that keeps plain text. Those for a processor drop it: they expect lists."""
    if not getattr(tokenizer, "chat_template", None):
        return False
    return _PROBE in render(tokenizer, [{"role": "user", "content": _PROBE}], True)


def _stop_when_said(stop: Sequence[str], tokenizer: Any) -> Callable[..., Tensor]:
    """A stopping criterion: true for the rows that hold a stop string in their last tokens.

    Every token is at least a byte, so a stop string just completed lies within as many tokens as it has bytes.
    """
    window = max(len(text.encode("utf-8")) for text in stop)

    def said(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        texts = tokenizer.batch_decode(input_ids[:, -window:], skip_special_tokens=True)
        return torch.tensor([any(text in tail for text in stop) for tail in texts], device=input_ids.device)

    return said
