"""Tiny checkpoints in every layout that dyntok reads, with random weights, made by transformers itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
}
_TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 4}


def make_tiny_llava(
    folder: Path | str,
    seed: int = 0,
    *,
    layers: int = 3,
    feature_layer: int = -1,
    max_shard_size: str = "5GB",
) -> Path:
    """Write a LLaVA-OneVision (384 x 384, 27 x 27 patches, 24 features, 32-dim LLM) as save_pretrained() does.

    `layers` is the tower's stored depth and `feature_layer` the config's `vision_feature_layer`; a small
    `max_shard_size` such as `20KB` makes several files and an index. Returns the folder.
    """
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config

    text = Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=200,
    )
    config = LlavaOnevisionConfig(
        vision_config=_vision_config(layers, head=False),
        text_config=text,
        image_token_id=190,
        video_token_id=191,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="full",
    )
    return _save(LlavaOnevisionForConditionalGeneration(config), Path(folder), seed, max_shard_size)


def make_tiny_siglip(folder: Path | str, seed: int = 0, *, vision_only: bool = False) -> Path:
    """Write a SigLIP (384 x 384, 4 layers, 24 features), with its text tower unless `vision_only`."""
    from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionModel

    vision = _vision_config(layers=4, head=True)
    if vision_only:
        return _save(SiglipVisionModel(vision), Path(folder), seed)
    special = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    text = SiglipTextConfig(**_TOWER, num_hidden_layers=1, vocab_size=50, **special)
    config = SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    return _save(SiglipModel(config), Path(folder), seed)


def make_tiny_siglip2(folder: Path | str, seed: int = 0) -> Path:
    """Write the vision tower of a NaFlex SigLIP2 (patches of 16, grid 16 x 16, 4 layers, 24 features)."""
    from transformers import Siglip2VisionConfig, Siglip2VisionModel

    config = Siglip2VisionConfig(**_TOWER, num_hidden_layers=4, patch_size=16, num_patches=256)
    processor = {"image_processor_type": "Siglip2ImageProcessor", "resample": 2, "max_num_patches": 256}
    return _save(Siglip2VisionModel(config), Path(folder), seed, processor={**_PREPROCESSOR, **processor})


def rename_to_lmms_lab(src: Path | str, dst: Path | str, *, with_last_layer: bool = False) -> Path:
    """Write the LLaVA-OneVision in `src` as lmms-lab's code would have: its keys, its config, no preprocessor file.

    lmms-lab's tower is one layer deeper than what it uses, and that layer is deleted before saving;
    `with_last_layer` stores it all the same. Tower sizes that no published SigLIP has are spelled out in the
    config. Returns `dst`.
    """
    import torch
    from safetensors.torch import load_file, save_file

    src, dst = Path(src), Path(dst)
    dst.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(src.glob("*.safetensors")):
        tensors |= {_lmms_key(key): tensor for key, tensor in load_file(file).items()}
    config = json.loads((src / "config.json").read_text(encoding="utf-8"))
    vision = config["vision_config"]
    if with_last_layer:
        layer = "model.vision_tower.vision_tower.vision_model.encoder.layers."
        last = f"{layer}{vision['num_hidden_layers'] - 1}."
        extra = {key: tensor for key, tensor in tensors.items() if key.startswith(last)}
        added = f"{layer}{vision['num_hidden_layers']}."
        for key, tensor in extra.items():
            tensors[added + key.removeprefix(last)] = torch.ones_like(tensor)
    save_file(tensors, dst / "model.safetensors", metadata={"format": "pt"})
    (dst / "config.json").write_text(json.dumps(_lmms_config(config), indent=2) + "\n", encoding="utf-8")
    return dst


def _lmms_key(key: str) -> str:
    prefixes = {
        "vision_tower.vision_model.": "model.vision_tower.vision_tower.vision_model.",
        "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "image_newline": "model.image_newline",
        "language_model.": "",
    }
    for prefix, replacement in prefixes.items():
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key


def _lmms_config(config: dict[str, Any]) -> dict[str, Any]:
    vision, text = config["vision_config"], config["text_config"]
    lmms = {
        **text,
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "mm_hidden_size": vision["hidden_size"],
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": "bilinear",
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "use_mm_proj": True,
    }
    if vision["hidden_size"] != 1152:
        described = ("num_attention_heads", "hidden_act", "layer_norm_eps")
        lmms["vision_config"] = {key: vision[key] for key in described}
        lmms["vision_config"]["num_hidden_layers"] = vision["num_hidden_layers"] + 1
    return lmms


def _vision_config(layers: int, *, head: bool) -> Any:
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(**_TOWER, num_hidden_layers=layers, image_size=384, patch_size=14, vision_use_head=head)


def _save(
    model: Any, folder: Path, seed: int, max_shard_size: str = "5GB", processor: dict[str, Any] | None = None
) -> Path:
    import torch

    # Every parameter is random, biases and norms too, so that a test notices one that is left out.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(centre + noise * (0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))
    with _no_progress_bars():
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    size = {"size": {"height": 384, "width": 384}}
    settings = (
        {**_PREPROCESSOR, "image_processor_type": "SiglipImageProcessor", **size} if processor is None else processor
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
