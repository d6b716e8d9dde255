"""The lmms-eval model `dyntok`: video benchmarks answered from a store instead of pixels.

lmms-eval finds it by its entry point: `python -m lmms_eval --model dyntok --model_args store=...,pretrained=...`. The
arguments are those of `EvaluationSettings`. Importing this needs lmms-eval, which pins packages that encoding does not
run with; reading stores does, so install `dyntok` beside it without its dependencies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from dyntok.adapters.answering import Answer, Question
from dyntok.adapters.evaluation import (
    EvaluationSettings,
    find_shown,
    generation_of,
    load_answerer,
    require_all,
)
from dyntok.adapters.video_ids import VideoFinder
from dyntok.errors import DyntokError, UsageError

try:
    from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts, unwrap_generation_output
    from lmms_eval.api.model import lmms
except ModuleNotFoundError as error:
    raise UsageError(
        f"lmms-eval cannot be imported: {error}",
        hint="in an environment of its own: pip install 'lmms-eval>=0.7' xxhash zarr && pip install --no-deps dyntok",
    ) from error

logger = logging.getLogger(__name__)

# lmms-eval 0.7 makes text of whatever a model returns, of a pair of numbers too, which its own multiple choice then
# cannot read. What comes in a GenerationResult it leaves alone.
_MAKES_TEXT_OF_SCORES = unwrap_generation_output((0.5, True))[0] != (0.5, True)


def manifest() -> Any:
    """What the entry point `lmms_eval.models` gives: the model's name, and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="dyntok", simple_class_path=f"{__name__}.DyntokModel")


class DyntokModel(lmms):  # type: ignore[misc]
    """Answers the questions of lmms-eval's tasks about the videos of a store.

    Every process of `accelerate launch` or `torchrun` holds the whole language model and answers its share of the
    questions. All videos are looked up before the first answer.

    Raises ConfigError, StoreError or CheckpointError for arguments that cannot be used.
    """

    is_simple = True

    def __init__(self, **arguments: Any) -> None:
        from accelerate import Accelerator

        super().__init__()
        self.settings = EvaluationSettings.create(arguments)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self.device = self.accelerator.device
        if self._world_size == 1 and self.settings.device is not None:
            self.device = torch.device(self.settings.device)
        self.batch_size = self.settings.batch_size
        self.answerer = load_answerer(self.settings, self.device)
        self.finder = VideoFinder(self.answerer.store, self.settings.id_from)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """One answer a request, with the tokens that were read (the video's and its markers) and written."""
        arguments = [request.args for request in requests]
        with self._leaving_together():
            answers = self._answer(
                [context for context, *_ in arguments],
                (to_visual(self._doc(*place)) for _, _, to_visual, *place in arguments),
                [wanted for _, wanted, *_ in arguments],
            )
        return [
            GenerationResult(answer.text, TokenCounts(answer.input_tokens, answer.output_tokens)) for answer in answers
        ]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """The answers of all rounds of each request. A task's `doc_to_text` gives the next round, or ends the talk."""
        talks = [
            _Talk(context, to_visual(self._doc(*place)), wanted, to_text, self._doc(*place))
            for context, wanted, to_visual, to_text, *place in (request.args for request in requests)
        ]
        active, number = talks, 0
        while active:
            with self._leaving_together():
                answers = self._answer(
                    [talk.text for talk in active],
                    (talk.visual for talk in active),
                    [talk.wanted for talk in active],
                )
            for talk, answer in zip(active, answers, strict=True):
                talk.outputs.append(answer.text)
            number += 1
            active = [talk for talk in active if talk.goes_on(number)]
        return [talk.outputs for talk in talks]

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        """For each request the pair of its continuation's loss, and whether greedy generation says it.

        A loss and not its negative: lmms-eval's multiple choice takes the choice with the lowest number, as its own
        LLaVA models give the mean loss of an answer and its end of turn. So does this one. A missing video is an error
        here whatever `missing` says, since no number would count as wrong.
        """
        with self._leaving_together():
            losses = self._losses([request.args for request in requests])
        return [GenerationResult(pair) for pair in losses] if _MAKES_TEXT_OF_SCORES else losses

    def clean(self) -> None:
        """Let go of the language model: a task's judge may need the memory."""
        self.__dict__.pop("answerer", None)
        super().clean()

    def _answer(self, texts: list[str], visuals: Iterable[Any], wanted: list[dict[str, Any]]) -> list[Answer]:
        shown = find_shown(self.finder, visuals)
        if self.settings.missing == "error":
            require_all(shown)
        elif shown.missing:
            logger.warning(
                "%d of %d questions get an empty answer, their videos are missing: %s",
                len(shown.missing),
                len(texts),
                shown.reasons,
            )
        answers = [Answer("", 0, 0)] * len(texts)
        asked = sorted(set(range(len(texts))) - set(shown.missing), key=lambda number: _key(wanted[number]))
        for _, group in groupby(asked, key=lambda number: _key(wanted[number])):
            numbers = list(group)
            generation = generation_of(wanted[numbers[0]])
            for batch in self._batches(numbers):
                questions = [Question(texts[number], shown.ids[number]) for number in batch]
                for number, answer in zip(batch, self.answerer.generate(questions, generation), strict=True):
                    answers[number] = answer
        return answers

    def _losses(self, arguments: list[tuple[Any, ...]]) -> list[tuple[float, bool]]:
        shown = find_shown(self.finder, (to_visual(self._doc(*place)) for _, _, to_visual, *place in arguments))
        require_all(shown)
        pairs = []
        for (context, target, _, *place), video_id in zip(arguments, shown.ids, strict=True):
            answer = target(self._doc(*place)) if callable(target) else target
            pairs.append((Question(context, video_id), str(answer)))
        losses: list[tuple[float, bool]] = []
        for batch in self._batches(range(len(pairs))):
            losses += self.answerer.losses([pairs[number] for number in batch])
        return losses

    @contextmanager
    def _leaving_together(self) -> Iterator[None]:
        """lmms-eval catches errors and ends with code 0, and the other processes would wait for this one for a day.

        A process that exits with another code is noticed by its launcher, which ends the rest.
        """
        try:
            yield
        except DyntokError as error:
            if self._world_size == 1:
                raise
            raise SystemExit(f"error: {error.message}\n\nhint: {error.hint}") from error

    def _batches(self, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        with tqdm(total=len(numbers), desc="Answering", disable=self._rank != 0) as progress:
            for first in range(0, len(numbers), self.batch_size):
                batch = numbers[first : first + self.batch_size]
                yield batch
                progress.update(len(batch))

    def _doc(self, doc_id: int, task: str, split: str) -> Any:
        return self.task_dict[task][split][doc_id]


@dataclass(slots=True)
class _Talk:
    """A request of several rounds, at its current one."""

    text: str
    visual: Any
    wanted: dict[str, Any]
    doc_to_text: Callable[..., Any]
    doc: Any
    outputs: list[str] = field(default_factory=list)
    info: Any = None

    def goes_on(self, number: int) -> bool:
        """Whether there is a round `number`; if so, it becomes the current one."""
        self.visual, self.text, ended, outputs, self.info = self.doc_to_text(
            self.doc, previous_output=list(self.outputs), round_idx=number, previous_round_info=self.info
        )
        self.outputs = list(outputs)
        return not ended


def _key(wanted: dict[str, Any]) -> str:
    return repr(sorted(wanted.items(), key=lambda item: item[0]))
