"""A real clip through a store into the LLM, against the whole model reading the same frames as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dyntok
from dyntok.adapters.huggingface import TokenLM, load_language_model
from dyntok.load import Conversation, Store, TokenSequence, expand, pack_batch, pad_batch
from dyntok.records import SourceRef
from dyntok.run import encode
from dyntok.run.settings import decode_settings
from dyntok.testing import make_tiny_llava, rename_to_lmms_lab
from dyntok.video import decode_frames
from dyntok.vision import describe_model
from tests.support.runs import demo_config

FRAMES, VIDEO = 4, 191
# 191 is the video token of the tiny model.
PROMPTS = (torch.tensor([5, 9, VIDEO, 17, 3, 8]), torch.tensor([21, VIDEO, 60, 61, 62, 63, 64, 65, 66]))


def greedy(prompt_ids: int) -> dict[str, Any]:
    """Settings of `generate`: greedy, and no id twice, or an untrained model says the same one for ever.

    `prompt_ids` is how many ids of the prompt generation knows of.
    """

    def not_again(ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter(1, ids[:, prompt_ids:], float("-inf"))

    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return {**settings, "logits_processor": [not_again]}


@dataclass(frozen=True)
class Case:
    """A checkpoint, a store made with it, and the pixels that its own model reads of the same frames."""

    checkpoint: Path
    store: Store
    pixels: Tensor
    model: Any

    def reference(self, prompt: Tensor, pixels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of a prompt and the ids that follow it, from pixels. The processor repeats the video token so."""
        at = int((prompt == VIDEO).nonzero())
        span = torch.full((FRAMES * 196 + 1,), VIDEO)
        ids = torch.cat([prompt[:at], span, prompt[at + 1 :]])[None]
        inputs = {"input_ids": ids, "pixel_values_videos": (self.pixels if pixels is None else pixels)[None]}
        inputs["attention_mask"] = torch.ones_like(ids)
        with torch.no_grad():
            logits = self.model(**inputs).logits[0]
            written = self.model.generate(**inputs, **greedy(ids.shape[1]))[0, ids.shape[1] :]
        return logits, written

    def sequence(self, prompt: Tensor) -> TokenSequence:
        labels = torch.full_like(prompt, -100)
        video = self.store["bikes.mp4"].at(threshold=1.0)
        return expand(Conversation("bikes.mp4", prompt, labels, video), VIDEO, "video")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> Case:
    from transformers import LlavaOnevisionForConditionalGeneration, SiglipImageProcessorPil

    folder = tmp_path_factory.mktemp("end-to-end")
    checkpoint = make_tiny_llava(folder / "tiny")
    config = demo_config(
        model=str(checkpoint),
        frames=FRAMES,
        thresholds=(0.5, 1.0),
        dtype="float32",
        precision="float32",
    )
    encode([str(bikes)], str(folder / "store"), config)
    with decode_frames(SourceRef(str(bikes)), decode_settings(config, describe_model(str(checkpoint)))) as video:
        images = np.stack(list(video.images()))
    processor = SiglipImageProcessorPil(
        size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return Case(checkpoint, dyntok.open(folder / "store"), pixels, model)


@pytest.fixture(scope="module")
def references(case: Case) -> list[tuple[Tensor, Tensor]]:
    return [case.reference(prompt) for prompt in PROMPTS]


@pytest.fixture(params=["whole model", "language model", "lmms-lab"])
def lm(request: pytest.FixtureRequest, case: Case, tmp_path: Path) -> TokenLM:
    """The three ways to the same LLM."""
    if request.param == "whole model":
        return TokenLM(case.model, case.store.row_marker)
    folder = case.checkpoint
    if request.param == "lmms-lab":
        folder = rename_to_lmms_lab(folder, tmp_path / "lmms")
    return TokenLM(load_language_model(str(folder)), case.store.row_marker)


def test_what_is_written_depends_on_the_video(case: Case, references: list[tuple[Tensor, Tensor]]) -> None:
    for prompt, (_, written) in zip(PROMPTS, references, strict=True):
        _, other = case.reference(prompt, case.pixels.flip(0))
        assert len(set(written.tolist())) == 8
        assert written.tolist() != other.tolist()


def test_logits_are_those_from_pixels(case: Case, references: list[tuple[Tensor, Tensor]], lm: TokenLM) -> None:
    sequences = [case.sequence(prompt) for prompt in PROMPTS]
    lengths = [len(sequence) for sequence in sequences]
    with torch.no_grad():
        rows = [lm(**pad_batch([sequence])).logits[0] for sequence in sequences]
        packed = lm(**pack_batch(sequences)).logits[0].split(lengths)
        padded = lm(**pad_batch(sequences)).logits
    for number, (expected, _) in enumerate(references):
        for actual in (rows[number], packed[number], padded[number][: lengths[number]]):
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_generation_is_that_from_pixels(case: Case, references: list[tuple[Tensor, Tensor]], lm: TokenLM) -> None:
    together = lm.generate(pad_batch([case.sequence(prompt) for prompt in PROMPTS], side="left"), **greedy(0))
    for prompt, row, (_, expected) in zip(PROMPTS, together, references, strict=True):
        alone = lm.generate(pad_batch([case.sequence(prompt)], side="left"), **greedy(0))
        assert alone.tolist() == [expected.tolist()]
        assert row.tolist() == expected.tolist()
