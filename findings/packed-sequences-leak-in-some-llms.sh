#!/usr/bin/env bash
# Packed rows (`position_ids` that begin again at 0, no attention mask) leak from one sequence into the next in some
# causal language models of transformers, without a word.
#
# Guess: transformers finds the sequences of a packed row from its position_ids, for every causal LM: it does so when it
# makes the causal mask for sdpa and eager attention, and its data collator that flattens batches relies on it.
# Behaviour: it holds for Qwen2 and Llama, where another first sequence does not move the logits of the second at all. In
# Qwen3.5, Qwen3-Next, GPT-OSS and Mamba2 the second sequence reads the first, in training as in evaluation, and
# nothing is said.
#
# Versions: transformers 5.23.0, torch 2.13.0 (CPU, float32, without fla, causal-conv1d and mamba-ssm), Python 3.11.
# Output seen (largest change of the second sequence's logits, as a share of their scale; random tiny models):
#   Qwen2 keeps them apart (0), Llama keeps them apart (0)
#   Qwen3.5 leaks (0.14), Qwen3-Next leaks (0.13), GPT-OSS leaks (1.2), Mamba2 leaks (1.1)
# Exits 1 if it is otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$work"
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python - 2> errors.txt > seen.txt <<'PY' || { cat errors.txt; exit 1; }
import sys

import torch
import transformers as hf

SIZE = dict(
    vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
LINEAR = dict(
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32)
MODELS = {
    "Qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZE)),
    "Llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZE)),
    "Qwen3.5": lambda: hf.Qwen3_5ForCausalLM(hf.Qwen3_5TextConfig(**SIZE, **LINEAR)),
    "Qwen3-Next": lambda: hf.Qwen3NextForCausalLM(hf.Qwen3NextConfig(**SIZE, **LINEAR, **EXPERTS)),
    "GPT-OSS": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**SIZE, num_local_experts=4)),
    "Mamba2": lambda: hf.Mamba2ForCausalLM(
        hf.Mamba2Config(
            vocab_size=200, hidden_size=64, num_hidden_layers=2, num_heads=8, head_dim=16, state_size=16, n_groups=1,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    ),
}  # fmt: skip


@torch.no_grad()
def leak(model):
    """How far another first sequence moves the logits of the second, beside their scale."""
    one, other, second = torch.randint(3, 200, (3, 8))
    positions = torch.arange(8).repeat(2)[None]
    after = [
        model(input_ids=torch.cat([first, second])[None], position_ids=positions, use_cache=False).logits[0, 8:]
        for first in (one, other)
    ]
    return float((after[0] - after[1]).abs().max() / after[0].abs().max())


for name, make in MODELS.items():
    torch.manual_seed(0)
    share = leak(make().eval())
    print(f"{name} {share:.1e}", file=sys.stderr)
    print(name, "keeps them apart" if share < 1e-4 else "leaks")
PY
cat errors.txt | grep -E "^(Qwen|Llama|GPT|Mamba)" || true
cat seen.txt
diff - seen.txt <<'SEEN'
Qwen2 keeps them apart
Llama keeps them apart
Qwen3.5 leaks
Qwen3-Next leaks
GPT-OSS leaks
Mamba2 leaks
SEEN
