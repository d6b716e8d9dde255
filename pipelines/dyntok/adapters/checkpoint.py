"""The LLM inside a LLaVA checkpoint: its config, and its tensors without the vision tower. Needs no transformers.

Stored keys become those of a causal LM of its own:

=============================  ===================================================================
of a causal LM                 stored as
=============================  ===================================================================
`model.embed_tokens.weight`    `language_model.model.*` (Hugging Face hub), `model.language_model.*` (Hugging Face in
`model.layers.N.*`             memory), `model.*` (lmms-lab)
`model.norm.weight`
`lm_head.weight`               `language_model.lm_head.weight`, `lm_head.weight`
=============================  ===================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dyntok.errors import CheckpointError
from dyntok.vision.architecture import model_kind
from dyntok.vision.files import CheckpointFiles, find_checkpoint

# What LLaVA's code adds to its Qwen2 config, beside keys that mean nothing to an LLM.
_NOT_THE_LLMS = ("mm_", "vision_", "image_", "use_mm_", "tokenizer_", "auto_map")

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
GENERATION_FILE = "generation_config.json"

_BODY = re.compile(
    r"(?:model\.)?(?:language_model\.)?(?:model\.)?"
    r"((?:embed_tokens|norm|layers\.\d+\.[a-z0-9_.]+)\.(?:weight|bias))"
)
_HEAD = re.compile(r"(?:model\.)?(?:language_model\.)?lm_head\.weight")


@dataclass(frozen=True, slots=True)
class LanguageModelFiles:
    """The LLM of a checkpoint that was found.

    Attributes:
        name: what the user gave, or the folder's name.
        config: the LLM's own config, `model_type` included.
        generation: the content of `generation_config.json`, empty without one.
        files: its tensors by the names of a causal LM.
    """

    name: str
    config: dict[str, Any]
    generation: dict[str, Any]
    files: CheckpointFiles

    def read(self, shapes: Mapping[str, tuple[int, ...]], optional: Iterable[str] = ()) -> dict[str, Tensor]:
        """The tensors named by `shapes`, on the CPU, memory-mapped; `optional` ones only if they are stored.

        Raises CheckpointError: one is missing, or has another shape.
        """
        return dict(self.files.read(self.files.fitting(shapes, "language model", tuple(optional))))


def causal_name(key: str) -> str | None:
    """The name that a stored tensor has in a causal LM, or None if it is not the LLM's."""
    if match := _BODY.fullmatch(key):
        return f"model.{match[1]}"
    return HEAD if _HEAD.fullmatch(key) else None


def find_language_model(model: str, revision: str | None = None, only: str | None = None) -> LanguageModelFiles:
    """Locate the LLM of a LLaVA checkpoint: a folder or a hub id.

    Args:
        only: the one tensor that will be read, so that no more than its file is downloaded.

    Raises CheckpointError.
    """

    def name_of(key: str) -> str | None:
        name = causal_name(key)
        return name if only is None or name == only else None

    files = find_checkpoint(model, revision, name_of, (GENERATION_FILE,))
    generation = files.documents.get(GENERATION_FILE, {})
    return LanguageModelFiles(files.name, language_config(files.config), generation, files)


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The LLM's own config out of that of a LLaVA checkpoint. Raises CheckpointError for other models."""
    kind = model_kind(config)
    if kind == "llava-hf":
        text = config.get("text_config")
        if not isinstance(text, Mapping) or "model_type" not in text:
            raise CheckpointError("config.json has no text_config that names the language model's type")
        # Hugging Face ties if either says so.
        tied = bool(config.get("tie_word_embeddings")) or bool(text.get("tie_word_embeddings"))
        return {**text, "tie_word_embeddings": tied}
    architectures = config.get("architectures") or [""]
    if kind == "llava-lmms" and str(architectures[0]).startswith("LlavaQwen"):
        own = {key: value for key, value in config.items() if not key.startswith(_NOT_THE_LLMS)}
        return {**own, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    raise CheckpointError(
        f"dyntok does not know the language model of {architectures[0] or config.get('model_type')!r}",
        hint="use LLaVA-OneVision or LLaVA-Video, in Hugging Face's layout or lmms-lab's (LlavaQwenForCausalLM)",
    )
