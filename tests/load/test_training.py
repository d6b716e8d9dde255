"""A tiny language model learns questions about stored videos, stops in the middle, and goes on as if it had not."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import dyntok
from dyntok.load import CHATML, BatchStream, ChatTokenizer, TokenStream, expand, pad_batch, splice
from dyntok.run import encode
from dyntok.testing import make_tiny_llava, make_tiny_tokenizer
from dyntok.vision.projector import VisionProjector
from tests.support.runs import demo_config

PLACEHOLDER = -200
ANSWERS = {
    "bikes.mp4": ("Bikes.", "Outdoors."),
    "bigbuckbunny.mp4": ("A rabbit.", "A meadow."),
    "carphone_pristine.mp4": ("A man.", "A car."),
}
QUESTIONS = ("Who?", "Where?")


def annotations() -> list[dict[str, Any]]:
    return [
        {"video": video, "question": f"<video>{question}", "answer": answer}
        for video, answers in ANSWERS.items()
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]


@pytest.fixture(scope="module")
def videos(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ANSWERS:
        shutil.copy(clip_folder / name, folder / name)
    return folder


@dataclass
class Trainer:
    """Model, row marker and, in vision space, the projector, with what trains them."""

    url: Path
    projector: nn.Module | None
    batches: BatchStream
    workers: int = 0

    def __post_init__(self) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        torch.manual_seed(0)
        store = dyntok.open(self.url)
        dim = store.info.token_dim if self.projector is None else self.projector.token_dim
        config = Qwen2Config(
            vocab_size=104,
            hidden_size=dim,
            intermediate_size=2 * dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        self.model = Qwen2ForCausalLM(config)
        self.marker = nn.Parameter(torch.zeros(dim))
        self.parts = nn.ModuleList([self.model, *([self.projector] if self.projector else [])])
        self.optimizer = torch.optim.AdamW([*self.parts.parameters(), self.marker])

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        embeds = splice(batch, self.model.get_input_embeddings(), self.marker, self.projector)
        out = self.model(
            inputs_embeds=embeds, labels=batch["labels"], position_ids=batch["position_ids"], use_cache=False
        )
        loss: torch.Tensor = out.loss
        return loss

    def train(self, epochs: range, stop_after: int | None = None) -> list[float]:
        losses: list[float] = []
        for epoch in epochs:
            self.batches.set_epoch(epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = 3e-3 * 0.98**epoch
            for batch in DataLoader(self.batches, batch_size=None, num_workers=self.workers):
                loss = self.loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                self.optimizer.zero_grad()
                losses.append(loss.item())
                if self.workers:
                    self.batches.mark(batch)
                if len(losses) == stop_after:
                    return losses
        return losses

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "stream": json.loads(json.dumps(self.batches.state_dict())),
                "parts": self.parts.state_dict(),
                "marker": self.marker.data,
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def restore(self, saved: dict[str, Any]) -> int:
        self.batches.load_state_dict(saved["stream"])
        self.parts.load_state_dict(saved["parts"])
        self.marker.data.copy_(saved["marker"])
        self.optimizer.load_state_dict(saved["optimizer"])
        return int(saved["stream"]["epoch"])


def trainer_of(url: Path, projector: nn.Module | None = None, workers: int = 0) -> Trainer:
    chat = ChatTokenizer(make_tiny_tokenizer(CHATML), PLACEHOLDER)
    stream = TokenStream(url, thresholds=[0.4, 0.45, 0.5, 0.55, 0.6], annotations=annotations(), seed=1)
    return Trainer(url, projector, BatchStream(stream, chat, max_tokens=450), workers)


def answers_of(trainer: Trainer, url: Path) -> list[tuple[str, str]]:
    """What the model says, greedily, and what it should have said, for every question."""
    tokenizer = make_tiny_tokenizer(CHATML)
    chat = ChatTokenizer(tokenizer, PLACEHOLDER)
    stream = TokenStream(url, thresholds=0.5, annotations=annotations(), shuffle=False)
    trainer.model.eval()
    pairs = []
    for sample in stream:
        assert sample.annotation is not None
        question = [{"role": "user", "content": sample.annotation["question"]}]
        ids = chat.prompt(question)
        talk = dyntok.Conversation(sample.id, ids, torch.full_like(ids, -100), sample.video)
        batch = pad_batch([expand(talk, PLACEHOLDER, "row")], side="left")
        with torch.no_grad():
            embeds = splice(batch, trainer.model.get_input_embeddings(), trainer.marker, trainer.projector)
            out = trainer.model.generate(
                inputs_embeds=embeds,
                attention_mask=batch["attention_mask"],
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=3,
                pad_token_id=1,
            )
        pairs.append((tokenizer.decode(out[0], skip_special_tokens=True).strip(), sample.annotation["answer"]))
    return pairs


@pytest.fixture(scope="module")
def llm_store(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("llm") / "out"
    encode([str(videos)], str(out), demo_config(frames=2))
    return out


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_run_resumed_in_the_middle_of_an_epoch_has_the_same_losses(llm_store: Path, workers: int, stop: int) -> None:
    whole = trainer_of(llm_store, workers=workers).train(range(3))
    assert len(whole) >= 9
    first = trainer_of(llm_store, workers=workers)
    losses = first.train(range(3), stop_after=stop)
    saved = first.checkpoint()
    second = trainer_of(llm_store, workers=workers)
    epoch = second.restore(saved)
    losses += second.train(range(epoch, 3))
    assert losses == whole


@pytest.mark.slow
def test_a_tiny_model_learns_its_questions_at_random_thresholds(llm_store: Path) -> None:
    trainer = trainer_of(llm_store)
    losses = trainer.train(range(200), stop_after=500)
    assert sum(losses[-20:]) / 20 < 0.1 < 1 < losses[0]
    assert trainer.marker.detach().abs().max() > 0
    pairs = answers_of(trainer, llm_store)
    assert [said for said, _ in pairs] == [right for _, right in pairs]


@pytest.mark.slow
def test_in_vision_space_the_projector_learns_too(videos: Path, tmp_path: Path) -> None:
    checkpoint = make_tiny_llava(tmp_path / "llava")
    config = demo_config(model=str(checkpoint), frames=2, space="vision", thresholds=(0.4, 0.5, 0.6))
    encode([str(videos)], str(tmp_path / "out"), config)
    projector = VisionProjector.from_checkpoint(str(checkpoint))
    before = copy.deepcopy(projector.state_dict())
    trainer = trainer_of(tmp_path / "out", projector)
    losses = trainer.train(range(200), stop_after=400)
    assert sum(losses[-20:]) / 20 < 0.2 < 1 < losses[0]
    assert all((projector.state_dict()[name] - value).abs().max() > 1e-4 for name, value in before.items())
    pairs = answers_of(trainer, tmp_path / "out")
    assert [said for said, _ in pairs] == [right for _, right in pairs]


def test_gradients_reach_marker_projector_and_embeddings(llm_store: Path) -> None:
    store = dyntok.open(llm_store)
    projector = nn.Linear(store.info.token_dim, 64)
    projector.token_dim = 64  # type: ignore[assignment]
    trainer = trainer_of(llm_store, projector)
    trainer.loss(next(iter(trainer.batches))).backward()  # type: ignore[no-untyped-call]
    for parameter in (trainer.marker, *projector.parameters(), trainer.model.get_input_embeddings().weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
