"""Stored tokens into a Hugging Face language model: the LLM of a LLaVA checkpoint, and its training and generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dyntok.adapters.checkpoint import EMBEDDING, HEAD, find_language_model
from dyntok.adapters.packing import check_packing, packing_arguments
from dyntok.errors import CheckpointError, UsageError
from dyntok.load import splice

# What a causal LM is given of a batch, or of a call; everything else is bookkeeping.
_FORWARDED = (
    "attention_mask",
    "position_ids",
    "num_items_in_batch",
    "logits_to_keep",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
)
# What a Trainer asks of what it trains, under the names that releases of transformers have for it.
_THE_MODELS = frozenset(
    {
        "config",
        "loss_type",
        "activation_checkpointing_enable",
        "activation_checkpointing_disable",
        "is_activation_checkpointing",
        "gradient_checkpointing_enable",
        "gradient_checkpointing_disable",
        "is_gradient_checkpointing",
    }
)


def load_language_model(
    model: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    attn_implementation: str | None = None,
) -> Any:
    """The LLM inside a LLaVA-OneVision or LLaVA-Video checkpoint, as a causal LM of transformers, in eval mode.

    Args:
        model: a folder, or a hub id of which only the files with LLM tensors are fetched; the vision tower is not read.
        dtype: by default that of the stored embedding.
        attn_implementation: as `from_pretrained` takes it, `flash_attention_2` for instance.

    Raises:
        CheckpointError: there is no such checkpoint, or a tensor is missing; the message names one.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    found = find_language_model(model, revision)
    settings = dict(found.config)
    kind = settings.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **settings)
        architecture = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"transformers knows no causal language model of type {kind!r}",
            hint="update transformers, or use a checkpoint with Qwen2",
        ) from error
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in architecture(config).state_dict().items()}
    stored = found.read(shapes, optional=[HEAD] if config.tie_word_embeddings else [])
    dtype = dtype or stored[EMBEDDING].dtype
    weights = {name: stored.pop(name).to(dtype, copy=True) for name in sorted(stored)}
    more = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    # Without a name, from_pretrained only builds the model around the weights it is given.
    built = architecture.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, **more)
    if found.generation:
        built.generation_config = GenerationConfig.from_dict(found.generation)
    return built.to(device)


class TokenLM(nn.Module):
    """A causal LM that reads batches of stored tokens: for a Trainer, a loop of your own, and `generate`.

    `dyntok.adapters.trainer.TokenTrainer` trains it on any number of GPUs. `transformers.Trainer` does with one, given
    `remove_unused_columns=False` and `accelerator_config={"dispatch_batches": False}`; without the latter, accelerate
    cuts every tensor of a batch to the number of its rows.

    What was trained is in `model` (which has `save_pretrained`), `row_marker` and `project`. `config` and what switches
    activation checkpointing are the model's own.

    Args:
        model: has `get_input_embeddings()` and takes `inputs_embeds`: what `load_language_model` gives, or a whole
            `LlavaOnevisionForConditionalGeneration`, whose vision tower then stays unused.
        row_marker: `[D]`, `store.row_marker`; None where the batches have no markers.
        train_row_marker: make it a parameter, in its own dtype.
        project: makes `[N, D]` of the stored `[N, F]` for stores in space `vision`: a `VisionProjector`. It is trained
            as far as its parameters require gradients.
    """

    def __init__(
        self,
        model: Any,
        row_marker: Tensor | None,
        *,
        train_row_marker: bool = False,
        project: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if train_row_marker and row_marker is None:
            raise UsageError("train_row_marker needs a row marker to start from", hint="pass store.row_marker")
        self.model = model
        self._packing_problems: dict[tuple[Any, ...], UsageError | None] = {}
        self.project = None if project is None else project.to(self.device)
        marker = None if row_marker is None else row_marker.detach().to(self.device, copy=True)
        self.row_marker: Tensor | None
        if train_row_marker and marker is not None:
            self.row_marker = nn.Parameter(marker)
        else:
            self.register_buffer("row_marker", marker)
        self.register_state_dict_post_hook(_leave_out_copies)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_back_copies)  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Where the model's input embedding is, and so where batches go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def forward(self, labels: Tensor | None = None, **batch: Any) -> Any:
        """The model's output for a batch of `pad_batch` or `pack_batch`, with the loss if there are labels.

        Keys that mean nothing to the model, such as `position` and `ids`, are left out, and there is no cache. Before
        its first batch without a mask, the model is asked whether it keeps packed sequences apart: see `check_packing`.

        Raises UsageError: it does not, and the batch holds several sequences in a row.
        """
        batch = self._on_device({**batch, "labels": labels})
        given = {name: batch[name] for name in _FORWARDED if batch.get(name) is not None}
        if "attention_mask" not in given and "position_ids" in given:
            problem = self._packing_problem()
            if _is_packed(batch):
                if problem is not None:
                    raise problem
                given |= packing_arguments(self.model, batch)
        # With a cache, transformers would take a packed row for one sequence.
        return self.model(inputs_embeds=self.inputs_embeds(batch), labels=batch["labels"], use_cache=False, **given)

    def inputs_embeds(self, batch: Mapping[str, Any]) -> Tensor:
        """`[B, L, D]`: the text's embeddings with the video and its markers put in."""
        if len(batch.get("cu_seq_lens_q", "ok")) < 2:
            raise UsageError(
                "the packed batch was cut along the first dimension of its tensors",
                hint='use TokenTrainer, or accelerator_config={"dispatch_batches": False} and one GPU a process',
            )
        return splice(batch, self.model.get_input_embeddings(), self.row_marker, self.project)

    def generate(self, batch: Mapping[str, Any], **settings: Any) -> Tensor:
        """Ids of the new tokens, `[B, new]`, for prompts in a batch of `pad_batch(..., side="left")`.

        `settings` are those of the model's `generate`. The prompt is known to it as embeddings only: what looks at the
        prompt's ids, such as a repetition penalty, sees the new ones alone.

        Raises UsageError: the batch is packed, or padded on the right.
        """
        mask = batch.get("attention_mask")
        if mask is None or not bool(mask[:, -1].all()):
            raise UsageError(
                "generate goes on at the last position of each row, which here is another sequence or padding",
                hint='make the batch with pad_batch(sequences, side="left")',
            )
        batch = self._on_device(batch)
        with torch.no_grad():
            ids: Tensor = self.model.generate(
                inputs_embeds=self.inputs_embeds(batch), attention_mask=batch["attention_mask"], **settings
            )
        return ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name) if name in _THE_MODELS else super().__getattr__(name)

    def _packing_problem(self) -> UsageError | None:
        """Why the model may not be given packed batches; found out once, on all ranks whatever their batches hold."""
        asked = (id(self.model), self.config.get_text_config()._attn_implementation, self.device)
        if asked not in self._packing_problems:
            try:
                check_packing(self.model)
                self._packing_problems[asked] = None
            except UsageError as error:
                self._packing_problems[asked] = error
        return self._packing_problems[asked]

    def _on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        device = self.device
        return {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }


def _is_packed(batch: Mapping[str, Any]) -> bool:
    """Whether a row holds several sequences. Looks at the positions, and so waits for the device, only if it must."""
    if batch.get("cu_seq_lens_q") is not None:
        return len(batch["cu_seq_lens_q"]) > 2
    return bool((batch["position_ids"][:, 1:] == 0).any())


def _copies(module: nn.Module) -> dict[str, str]:
    """For each parameter that is another one under a second name (tied embeddings): that other one's name."""
    first: dict[int, str] = {}
    copies: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            copies[name] = kept
    return copies


def _leave_out_copies(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    # The Trainer saves a state dict as safetensors, which refuse two names of the same memory.
    for name in _copies(module):
        state.pop(prefix + name, None)


def _put_back_copies(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, kept in _copies(module).items():
        if prefix + kept in state:
            state.setdefault(prefix + name, state[prefix + kept])
