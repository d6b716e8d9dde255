"""Language models of transformers that keep packed sequences apart, and others that do not, against one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from dyntok.adapters.huggingface import TokenLM
from dyntok.adapters.packing import check_packing, packing_arguments
from dyntok.errors import UsageError
from dyntok.load import pack_batch, pad_batch
from tests.adapters.test_huggingface import DIM, MARKER, SEQUENCES

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": DIM,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
HEADS: dict[str, Any] = {**SIZES, "head_dim": 8}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA: dict[str, Any] = {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8}

APART: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES)),
    "qwen2 with windows": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=3, max_window_layers=2)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)),
    "qwen3 with experts": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**HEADS, **EXPERTS)),
}
LEAKING: dict[str, Callable[[], Any]] = {
    "gpt-oss": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**HEADS, num_local_experts=4)),
    "qwen3.5": lambda: hf.Qwen3_5ForCausalLM(hf.Qwen3_5TextConfig(**HEADS, **LINEAR)),
    "qwen3-next": lambda: hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(**HEADS, **LINEAR, **EXPERTS, shared_expert_intermediate_size=16)
    ),
    "mamba2": lambda: hf.Mamba2ForCausalLM(
        hf.Mamba2Config(vocab_size=200, hidden_size=DIM, num_hidden_layers=2, **MAMBA)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=200, hidden_size=DIM, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
            word_embed_proj_dim=DIM,
        )
    ),
}  # fmt: skip


def made(make: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return make().to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", APART)
def test_models_that_keep_sequences_apart_are_trained_on_packed_batches(name: str, dtype: torch.dtype) -> None:
    lm = TokenLM(made(APART[name], dtype), MARKER)
    with torch.no_grad():
        packed = lm(**pack_batch(SEQUENCES)).logits[0].split([len(one) for one in SEQUENCES])
        alone = [lm(**pad_batch([one])).logits[0] for one in SEQUENCES]
    for ours, single in zip(packed, alone, strict=True):
        torch.testing.assert_close(ours, single, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LEAKING)
def test_models_that_let_sequences_see_each_other_are_refused(name: str, dtype: torch.dtype) -> None:
    lm = TokenLM(made(LEAKING[name], dtype), MARKER)
    for _ in range(2):
        with pytest.raises(UsageError, match="packed sequences") as caught:
            lm(**pack_batch(SEQUENCES))
        assert "packed=False" in (caught.value.hint or "")
    # What is in a row by itself, or masked, is not packed.
    alone = lm(**pack_batch(SEQUENCES[:1])).logits
    assert torch.isfinite(alone).all()
    torch.testing.assert_close(lm(**pad_batch(SEQUENCES[:1])).logits, alone, atol=2e-2, rtol=0)
    assert torch.isfinite(lm(**pad_batch(SEQUENCES)).loss)


def test_positions_alone_are_a_packed_batch_too() -> None:
    batch = pack_batch(SEQUENCES)
    for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"):
        del batch[name]
    assert TokenLM(made(APART["qwen2"]), MARKER)(**batch).loss > 0
    with pytest.raises(UsageError, match="Mamba2ForCausalLM does not keep packed sequences apart"):
        TokenLM(made(LEAKING["mamba2"]), MARKER)(**batch)


def test_the_model_is_asked_once_and_again_with_another_attention() -> None:
    model = made(APART["qwen2"])
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(model.training))
    lm = TokenLM(model, MARKER).train()
    for _ in range(3):
        lm(**pack_batch(SEQUENCES))
    assert calls == [False] * 4 + [True] * 3
    model.set_attn_implementation("eager")
    lm(**pack_batch(SEQUENCES))
    assert len(calls) == 12
    calls.clear()
    TokenLM(model, MARKER)(**pad_batch(SEQUENCES))
    assert len(calls) == 1


def test_asking_leaves_the_model_as_it_was() -> None:
    model = made(lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, attention_dropout=0.5))).train()
    model.model.layers[1].eval()
    before = [(module.training, *module.state_dict().values()) for module in model.modules()]
    state = torch.random.get_rng_state()
    check_packing(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    for module, (training, *values) in zip(model.modules(), before, strict=True):
        assert module.training is training
        assert all(map(torch.equal, module.state_dict().values(), values))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_asking_within_autocast_takes_no_gradient_away() -> None:
    lm = TokenLM(made(APART["qwen2"]), MARKER).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = lm(**pack_batch(SEQUENCES)).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in lm.parameters())


class Mixing(nn.Module):
    """Adds to each position the mean of those before it, of its own sequence as far as `tell` says which those are."""

    def __init__(self, tell: str | None) -> None:
        super().__init__()
        self.table, self.tell = nn.Embedding(50, 6), tell

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor, use_cache: bool, **given: Any) -> Any:
        length = position_ids.shape[1]
        number = torch.zeros_like(position_ids[0])
        if self.tell == "seq_idx":
            number = given["seq_idx"][0]
        elif self.tell == "cu_seq_lens_q":
            number = torch.bucketize(torch.arange(length), given["cu_seq_lens_q"][1:], right=True)
        seen = torch.ones(length, length).tril() * (number == number[:, None])
        mixed = seen / seen.sum(1, keepdim=True) @ inputs_embeds[0]
        return hf.modeling_outputs.CausalLMOutput(logits=(inputs_embeds + mixed[None]))


@pytest.mark.parametrize("tell", ["seq_idx", "cu_seq_lens_q"])
def test_a_kernel_is_given_what_it_tells_sequences_apart_by(tell: str) -> None:
    check_packing(Mixing(tell))
    with pytest.raises(UsageError, match="does not keep packed sequences apart"):
        check_packing(Mixing(None))


def test_a_model_is_given_only_what_it_takes() -> None:
    batch = pack_batch(SEQUENCES[:3])
    given = packing_arguments(Mixing(None), batch)
    sizes = torch.tensor([len(one) for one in SEQUENCES[:3]])
    assert torch.equal(given["seq_idx"], torch.arange(3).repeat_interleave(sizes)[None].int())
    assert given["seq_idx"].dtype == torch.int32
    assert given.keys() == {
        "position_ids", "seq_idx", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k",
    }  # fmt: skip

    class Strict(nn.Module):
        def forward(self, inputs_embeds: Tensor, position_ids: Tensor) -> None: ...

    assert packing_arguments(Strict(), batch).keys() == {"position_ids"}
    derived = packing_arguments(Mixing(None), {"position_ids": batch["position_ids"]})
    assert derived.keys() == given.keys()
    assert all(torch.equal(*map(torch.as_tensor, (derived[name], given[name]))) for name in given)
