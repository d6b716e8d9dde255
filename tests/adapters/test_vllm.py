"""Prompts as vLLM takes them, without vLLM: against what the model itself is given, and what its server decodes."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from dyntok.adapters.huggingface import TokenLM, load_language_model
from dyntok.adapters.vllm import encode_prompt_embeds, load_embedding, prompt_embeds
from dyntok.errors import CheckpointError, UsageError
from dyntok.load import pack_batch, pad_batch
from dyntok.testing import make_tiny_llava, make_tiny_siglip, rename_to_lmms_lab
from dyntok.vision.files import CheckpointFiles
from tests.adapters.test_huggingface import MARKER, SEQUENCES, sequence


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("llava") / "tiny")


def test_importing_it_loads_no_llm_library() -> None:
    code = "import sys, dyntok.adapters.vllm, dyntok.adapters.huggingface; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"transformers", "vllm", "accelerate", "lmms_eval", "av"}


def stored_embedding(checkpoint: Path) -> Tensor:
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        tensor: Tensor = file.get_tensor("language_model.model.embed_tokens.weight")
        return tensor


@pytest.mark.parametrize("layout", ["hub", "sharded", "lmms-lab"])
def test_the_embedding_is_read_and_nothing_else(
    checkpoint: Path, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {
        "hub": lambda: checkpoint,
        "sharded": lambda: make_tiny_llava(tmp_path / "sharded", max_shard_size="20KB"),
        "lmms-lab": lambda: rename_to_lmms_lab(checkpoint, tmp_path / "lmms"),
    }[layout]()
    if layout == "sharded":
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        kept = index["language_model.model.embed_tokens.weight"]
        for file in set(index.values()) - {kept}:
            (folder / file).unlink()
    read, asked = CheckpointFiles.read, []
    monkeypatch.setattr(CheckpointFiles, "read", lambda self, names: asked.extend(names) or read(self, names))

    embedding = load_embedding(str(folder))

    assert asked == ["model.embed_tokens.weight"]
    assert torch.equal(embedding.weight, stored_embedding(checkpoint))
    assert not embedding.weight.requires_grad
    assert load_embedding(str(folder), dtype=torch.bfloat16).weight.dtype == torch.bfloat16


def test_a_checkpoint_without_an_llm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_embedding(str(make_tiny_siglip(tmp_path / "siglip")))


@pytest.mark.parametrize("make", [list, pack_batch, pad_batch, lambda s: pad_batch(s, side="left")])
def test_prompts_are_what_the_model_reads(checkpoint: Path, make: Any) -> None:
    lm = TokenLM(load_language_model(str(checkpoint)), MARKER)
    prompts = prompt_embeds(make(SEQUENCES), load_embedding(str(checkpoint)), MARKER)
    assert len(prompts) == len(SEQUENCES)
    for prompt, one in zip(prompts, SEQUENCES, strict=True):
        assert prompt.keys() == {"prompt_embeds"}
        assert torch.equal(prompt["prompt_embeds"], lm.inputs_embeds(pad_batch([one]))[0])
        assert not prompt["prompt_embeds"].requires_grad


def test_a_projector_is_applied(checkpoint: Path) -> None:
    project = nn.Linear(8, 32)
    small = [sequence(seed, dim=8) for seed in range(2)]
    prompts = prompt_embeds(small, load_embedding(str(checkpoint)), MARKER, project)
    for prompt, one in zip(prompts, small, strict=True):
        visual = prompt["prompt_embeds"][one.visual_index]
        torch.testing.assert_close(visual, project(one.visual_tokens).detach(), atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="no row marker"):
        prompt_embeds(small, load_embedding(str(checkpoint)), None, project)


def test_what_is_sent_is_what_the_server_loads(checkpoint: Path) -> None:
    prompts = prompt_embeds(SEQUENCES, load_embedding(str(checkpoint), dtype=torch.bfloat16), MARKER)
    for prompt in prompts:
        embeds = prompt["prompt_embeds"]
        text = encode_prompt_embeds(embeds)
        # As vLLM does it: strict base64, and no pickled code.
        data = base64.b64decode(text, validate=True)
        loaded = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        assert loaded.dtype == torch.bfloat16
        assert torch.equal(loaded, embeds)
        # Not the memory of the batch that it came from.
        assert len(data) < embeds.numel() * 2 + 4096


@pytest.mark.parametrize("embeds", [torch.ones(1, 3, 4), torch.ones(4), torch.ones(3, 4, dtype=torch.int64)])
def test_only_one_prompt_is_encoded(embeds: Tensor) -> None:
    with pytest.raises(UsageError, match=r"a prompt is \[S, D\]"):
        encode_prompt_embeds(embeds)
