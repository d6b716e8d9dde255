"""`TokenTrainer` over a stream: what it trains on, and how it goes on after a stop."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import dyntok
from dyntok.adapters import trainer as trainer_module
from dyntok.adapters.huggingface import TokenLM
from dyntok.adapters.trainer import TokenTrainer, load_stream_state
from dyntok.errors import ConfigError, UsageError
from dyntok.load import CHATML, BatchStream, ChatTokenizer, TokenStream, pad_batch
from dyntok.testing import make_tiny_tokenizer
from tests.support.runs import ROOT
from tests.support.samples import sharded_store

DIM, PLACEHOLDER, SAMPLES = 8, -200, 13
MARKER = torch.linspace(-1, 1, DIM)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("store") / "out")
    sharded_store(folder, [4, 6, 3])
    return folder


def chat() -> ChatTokenizer:
    return ChatTokenizer(make_tiny_tokenizer(CHATML), PLACEHOLDER)


def token_stream(url: str, **options: Any) -> TokenStream[Any]:
    rows = [{"video": name, "question": "Who?", "answer": f"It is {name}."} for name in dyntok.open(url).ids]
    return TokenStream(url, annotations=rows, seed=3, **options)


def batches(url: str, max_tokens: int = 250, **options: Any) -> BatchStream:
    return BatchStream(token_stream(url, **options), chat(), max_tokens=max_tokens, window=8)


def token_lm() -> TokenLM:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(make_tiny_tokenizer(CHATML)),
        hidden_size=DIM,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return TokenLM(Qwen2ForCausalLM(config), MARKER, train_row_marker=True)


def arguments(out: Path, **settings: Any) -> Any:
    from transformers import TrainingArguments

    plain = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0}
    quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    return TrainingArguments(output_dir=str(out), **{**plain, **quiet, **settings})


class Seen:
    """Positions of every batch that a model was trained on."""

    def __init__(self, lm: TokenLM) -> None:
        self.batches: list[list[int]] = []
        lm.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _: Any, __: Any, given: dict[str, Any]) -> None:
        self.batches.append(given["position"].tolist())


def weights(lm: TokenLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in lm.parameters()])


def expected_batches(url: str, epochs: int, **options: Any) -> list[list[int]]:
    stream, found = batches(url, **options), []
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        found += [batch["position"].tolist() for batch in stream]
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_as_they_are_epoch_after_epoch(url: str, tmp_path: Path, workers: int) -> None:
    expected = expected_batches(url, epochs=3)
    steps = len(expected) // 2
    lm = token_lm()
    seen = Seen(lm)
    loader = DataLoader(batches(url), batch_size=None, num_workers=workers)
    settings = arguments(tmp_path, max_steps=steps, gradient_accumulation_steps=2, save_strategy="no")
    TokenTrainer(lm, settings, train_loader=loader).train()
    assert seen.batches == expected[: 2 * steps]
    assert Counter(position for batch in expected for position in batch) == dict.fromkeys(range(SAMPLES), 3)


@pytest.mark.parametrize(("workers", "stop"), [(1, 3), (0, "epoch")])
def test_a_resumed_run_ends_as_one_that_never_stopped(url: str, tmp_path: Path, workers: int, stop: int | str) -> None:
    per_epoch = len(expected_batches(url, epochs=1))
    first = per_epoch if stop == "epoch" else int(stop)
    last = 2 * per_epoch + 1

    def train(name: str, steps: int, resume: bool = False) -> tuple[list[list[int]], TokenLM]:
        lm = token_lm()
        seen = Seen(lm)
        loader = DataLoader(batches(url), batch_size=None, num_workers=workers)
        settings = arguments(tmp_path / name, max_steps=steps, save_strategy="steps", save_steps=first)
        TokenTrainer(lm, settings, train_loader=loader).train(resume_from_checkpoint=resume or None)
        return seen.batches, lm

    whole, through = train("through", last)
    begun, _ = train("stopped", first)
    resumed, again = train("stopped", last, resume=True)
    assert begun + resumed == whole
    assert torch.equal(weights(again), weights(through))
    assert isinstance(again.row_marker, torch.nn.Parameter)
    assert not torch.equal(again.row_marker, MARKER)


def test_padded_batches_of_a_collate_function(url: str, tmp_path: Path) -> None:
    stream = token_stream(url, transform=chat(), block=4)
    loader = DataLoader(stream, batch_size=4, collate_fn=pad_batch, num_workers=2)
    lm = token_lm()
    seen = Seen(lm)
    TokenTrainer(lm, arguments(tmp_path, max_steps=8, save_steps=8), train_loader=loader).train()
    assert len(seen.batches) == 8
    counts = Counter(position for batch in seen.batches for position in batch)
    assert counts == dict.fromkeys(range(SAMPLES), 2)
    state = json.loads((tmp_path / "checkpoint-8" / "dyntok_stream_00000.json").read_text())
    assert (state["epoch"], state["prefix"]) == (1, SAMPLES)


def test_other_ranks_may_go_on(url: str, tmp_path: Path) -> None:
    """Two ranks' places in one epoch, loaded by one."""
    seen: list[Any] = []
    for rank in range(2):
        stream = token_stream(url, transform=chat(), rank=rank, world_size=2)
        seen += [sequence.position for sequence in islice(stream, 2 + rank)]
        (tmp_path / f"dyntok_stream_{rank:05d}.json").write_text(json.dumps(stream.state_dict()))
    one = token_stream(url, transform=chat())
    load_stream_state(one, tmp_path)
    rest = [sequence.position for sequence in one]
    assert sorted(seen + rest) == list(range(SAMPLES))


def test_a_checkpoint_drops_the_places_of_ranks_that_are_no_more(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    for rank in (0, 1, 12):
        (folder / f"dyntok_stream_{rank:05d}.json").write_text("{}")
    loader = DataLoader(batches(url), batch_size=None)
    TokenTrainer(token_lm(), arguments(tmp_path, max_steps=1, save_steps=1), train_loader=loader).train()
    assert [path.name for path in folder.glob("dyntok*")] == ["dyntok_stream_00000.json"]


def test_evaluation_reads_its_own_loader(url: str, tmp_path: Path) -> None:
    loader = DataLoader(batches(url), batch_size=None)
    held_out = DataLoader(batches(url, max_tokens=400), batch_size=None)
    settings = arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1, save_strategy="no")
    lm = token_lm()
    trainer = TokenTrainer(lm, settings, train_loader=loader, eval_loader=held_out)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    lm.eval()
    with torch.no_grad():
        expected = [lm(**batch).loss.item() for batch in held_out]
    assert losses[-1] == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_what_cannot_be_trained_is_said(url: str, tmp_path: Path) -> None:
    loader = DataLoader(batches(url), batch_size=None)
    with pytest.raises(ConfigError, match="no length") as caught:
        TokenTrainer(token_lm(), arguments(tmp_path), train_loader=loader)
    assert "max_steps" in (caught.value.hint or "")
    several: Any = SimpleNamespace(max_steps=1, n_gpu=2)
    with pytest.raises(ConfigError, match="2 GPUs"):
        TokenTrainer(token_lm(), several, train_loader=loader)
    (tmp_path / "checkpoint-1").mkdir()
    trainer = TokenTrainer(token_lm(), arguments(tmp_path, max_steps=1), train_loader=loader)
    with pytest.raises(UsageError, match="no place in the stream"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    nothing = BatchStream(token_stream(url), chat(), max_tokens=1, too_long="drop")
    trainer = TokenTrainer(
        token_lm(), arguments(tmp_path, max_steps=1), train_loader=DataLoader(nothing, batch_size=None)
    )
    with pytest.raises(UsageError, match="holds no batch"):
        trainer.train()


def test_without_accelerate_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="accelerate") as caught:
        importlib.reload(trainer_module)
    assert caught.value.hint == "pip install accelerate"


@pytest.mark.slow
def test_two_ranks_train_on_their_own_parts(url: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("train_in_ranks.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "pipelines")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*launch, str(script), url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [rank["share"] for rank in ranks] == [[0, 2], [1, 2]]
    # Averaged gradients keep the models the same.
    assert ranks[0]["weights"] == pytest.approx(ranks[1]["weights"], abs=1e-9)
    for number, rank in enumerate(ranks):
        assert rank["seen"] == expected_batches(url, epochs=4, rank=number, world_size=2)[:6]
    stored = sorted(path.name for path in (tmp_path / "checkpoint-6").glob("dyntok_stream_*"))
    assert stored == ["dyntok_stream_00000.json", "dyntok_stream_00001.json"]
