"""Answers without the plug-in: one question at a time, from the store through TokenLM."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

import dyntok
from dyntok.adapters.huggingface import TokenLM, load_language_model


class Direct:
    """The checkpoint's language model on one store, videos shown at `threshold`, one marker after each.

    The prompt is written out here, so that it does not depend on how the plug-in makes it.
    """

    def __init__(self, checkpoint: Path, store: Path, threshold: float | None = None) -> None:
        self.store = dyntok.open(store)
        self.threshold = threshold
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = load_language_model(str(checkpoint), dtype=torch.float32, device="cpu")
        self.lm = TokenLM(model, self.store.row_marker)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, video: str | None, question: str) -> tuple[list[int], list[int]]:
        """Ids before the video, and after it."""
        if video is None:
            return [], self.ids(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        return self.ids("<|im_start|>user\n"), self.ids(f"\n{question}<|im_end|>\n<|im_start|>assistant\n")

    def batch(self, video: str | None, before: list[int], after: list[int]) -> dict[str, Any]:
        if video is None:
            ids = torch.tensor(before + after)
            nothing = torch.empty(0, dtype=torch.int64)
            empty = torch.empty(0, self.store.info.token_dim)
            sequence = dyntok.TokenSequence("", ids, torch.full_like(ids, -100), empty, nothing, nothing)
        else:
            ids = torch.tensor([*before, -200, *after])
            shown = self.store[video].at(threshold=self.threshold)
            talk = dyntok.Conversation(video, ids, torch.full_like(ids, -100), shown)
            sequence = dyntok.expand(talk, -200, "video")
        return dyntok.pad_batch([sequence], side="left")

    def answer(self, video: str | None, question: str, tokens: int, at_least: int = 0) -> str:
        """Greedy, until the end of the turn."""
        batch = self.batch(video, *self.prompt(video, question))
        with torch.inference_mode():
            ids = self.lm.generate(
                batch,
                max_new_tokens=tokens,
                min_new_tokens=at_least,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        said = takewhile(lambda token: token not in ends, ids[0].tolist())
        return self.tokenizer.decode(list(said), skip_special_tokens=True)

    def loss(self, video: str | None, question: str, answer: str) -> tuple[float, bool]:
        """Of the answer and its end of turn, position by position; and whether the answer is greedy."""
        before, after = self.prompt(video, question)
        own = self.ids(answer)
        said = [*own, *self.ids("<|im_end|>\n")]
        with torch.inference_mode():
            logits = self.lm.forward(**self.batch(video, before, [*after, *said])).logits[0].float()
        total, greedy = 0.0, True
        for place, token in enumerate(said):
            scores = logits[-len(said) + place - 1].log_softmax(-1)
            total -= float(scores[token])
            greedy &= place >= len(own) or int(scores.argmax()) == token
        return total / len(said), greedy
