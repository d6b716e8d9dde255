"""Stored tokens as prompts for vLLM, which takes a prompt's embeddings in place of its token ids.

Give vLLM the plain language model: `load_language_model(...).save_pretrained(folder)`, and the checkpoint's tokenizer.

    llm = LLM(folder, enable_prompt_embeds=True)
    outputs = llm.generate(prompt_embeds(sequences, embed_tokens, store.row_marker), SamplingParams(...))

Its OpenAI-compatible server (`vllm serve folder --enable-prompt-embeds`) takes them in a completion request, as
`prompt_embeds` made by `encode_prompt_embeds`. It puts no chat template around them, so the sequence holds all of it.
None of this imports vLLM.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dyntok.adapters.checkpoint import EMBEDDING, find_language_model
from dyntok.errors import UsageError
from dyntok.load import TokenSequence, pack_batch, splice


def load_embedding(
    model: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> nn.Embedding:
    """The input embedding of a LLaVA checkpoint's LLM, frozen; of its weights, nothing else is read or fetched.

    `dtype` is by default the stored one. Raises CheckpointError.
    """
    found = find_language_model(model, revision, only=EMBEDDING)
    stored = found.files.tensors.get(EMBEDDING)
    weight = found.read({EMBEDDING: () if stored is None else stored.shape})[EMBEDDING]
    weight = weight.to(device, dtype or weight.dtype, copy=True)
    return nn.Embedding(len(weight), weight.shape[1], _weight=weight, _freeze=True)


def prompt_embeds(
    prompts: Sequence[TokenSequence] | Mapping[str, Any],
    embed_tokens: nn.Module,
    row_marker: Tensor | None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> list[dict[str, Tensor]]:
    """One prompt a sequence, for `vllm.LLM(..., enable_prompt_embeds=True).generate`.

    Args:
        prompts: sequences, or a batch of `pad_batch` (padded on either side) or `pack_batch`.
        embed_tokens: the LLM's input embedding: that of `load_embedding`, or a model's own.
        row_marker, project: as `dyntok.splice` takes them.

    Returns:
        `[{"prompt_embeds": [S, D]}, ...]` on the CPU, in the dtype of the embedding; vLLM casts to its own.

    Raises:
        UsageError: markers are needed and there is no row marker, or the dimensions differ.
    """
    batch = prompts if isinstance(prompts, Mapping) else pack_batch(prompts)
    device = next(embed_tokens.parameters()).device
    batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    with torch.no_grad():
        embeds = splice(batch, embed_tokens, row_marker, project).cpu()
    if "attention_mask" in batch:
        rows = [row[mask] for row, mask in zip(embeds, batch["attention_mask"].bool().cpu(), strict=True)]
    else:
        sizes: list[int] = batch["cu_seq_lens_q"].diff().tolist()
        rows = [row.clone() for row in torch.split(embeds[0], sizes)]
    return [{"prompt_embeds": row} for row in rows]


def encode_prompt_embeds(embeds: Tensor) -> str:
    """The base64 text that vLLM's server takes under `prompt_embeds`: of `torch.save`, as it is read there.

    Args:
        embeds: `[S, D]` of one prompt, floating point.

    Raises:
        UsageError: it is none.
    """
    if embeds.ndim != 2 or not embeds.is_floating_point():
        raise UsageError(
            f"a prompt is [S, D] in floating point, got {embeds.dtype} {list(embeds.shape)}",
            hint='encode each prompt by itself: encode_prompt_embeds(prompt["prompt_embeds"])',
        )
    buffer = io.BytesIO()
    # A view would be saved with all that it is a view of.
    torch.save(embeds.detach().cpu().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
