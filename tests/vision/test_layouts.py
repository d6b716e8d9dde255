"""The same weights are the same model, whatever their keys are called and whichever file they are in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dyntok.errors import CheckpointError
from dyntok.testing import make_tiny_llava, make_tiny_siglip, rename_to_lmms_lab
from dyntok.vision import describe_model, load_encoder
from dyntok.vision.layout import canonical_name, canonical_names


def copy_checkpoint(src: Path, dst: Path, *, keys: dict[str, str] | None = None, **config: object) -> Path:
    """A copy with key prefixes replaced and config values set (None removes one)."""
    dst.mkdir()
    tensors = load_file(src / "model.safetensors")
    for old, new in (keys or {}).items():
        tensors = {new + key.removeprefix(old) if key.startswith(old) else key: t for key, t in tensors.items()}
    save_file(tensors, dst / "model.safetensors")
    settings = {**json.loads((src / "config.json").read_text()), **config}
    (dst / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    if (src / "preprocessor_config.json").exists():
        (dst / "preprocessor_config.json").write_text((src / "preprocessor_config.json").read_text())
    return dst


@pytest.mark.parametrize("with_last_layer", [False, True])
def test_lmms_lab_layout_gives_the_same_bits(
    with_last_layer: bool, frames: Tensor, tiny_llava: Path, tmp_path: Path
) -> None:
    lmms = rename_to_lmms_lab(tiny_llava, tmp_path / "lmms", with_last_layer=with_last_layer)
    stored = [key for key in load_file(lmms / "model.safetensors") if "encoder.layers.3." in key]
    assert bool(stored) == with_last_layer
    one, other = load_encoder(str(tiny_llava)), load_encoder(str(lmms))

    assert (one.spec.kind, other.spec.kind) == ("llava-hf", "llava-lmms")
    assert one.spec.fingerprint == other.spec.fingerprint
    assert torch.equal(one.encode(frames).tokens, other.encode(frames).tokens)
    assert one.row_marker is not None and other.row_marker is not None
    assert torch.equal(one.row_marker, other.row_marker)


def test_so400m_is_known_without_a_description(tmp_path: Path) -> None:
    """Only the shapes matter here, so the tower has the published width and otherwise as little as possible."""
    from dyntok.vision.architecture import Architecture, read_architecture

    def tower(layers: int) -> Architecture:
        return Architecture(1152, 4304, 16, layers, 14, 384, "gelu_pytorch_tanh", 1e-6)

    config = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_projector_type": "mlp2x_gelu"}
    for depth in (26, 27):
        assert read_architecture("llava-lmms", config, tower(depth).tensor_shapes(), "vision") == tower(26)
    with pytest.raises(CheckpointError, match="25 layers"):
        read_architecture("llava-lmms", config, tower(25).tensor_shapes(), "vision")


@pytest.mark.parametrize(
    "keys",
    [
        {"vision_tower.": "vision_tower.vision_model."},
        {
            "vision_tower.": "model.vision_tower.",
            "multi_modal": "model.multi_modal",
            "image_n": "model.image_n",
        },
        {"vision_tower.": "model.vision_tower.vision_model.", "language_model.": "model.language_model."},
    ],
)
def test_hugging_face_layouts_have_one_fingerprint(keys: dict[str, str], tiny_llava: Path, tmp_path: Path) -> None:
    renamed = copy_checkpoint(tiny_llava, tmp_path / "renamed", keys=keys)
    assert describe_model(str(renamed)).fingerprint == describe_model(str(tiny_llava)).fingerprint


def test_shards_give_the_same_model(frames: Tensor, tiny_llava: Path, tmp_path: Path) -> None:
    sharded = make_tiny_llava(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    one, other = load_encoder(str(tiny_llava)), load_encoder(str(sharded))
    assert one.spec.fingerprint == other.spec.fingerprint
    assert torch.equal(one.encode(frames).tokens, other.encode(frames).tokens)


def test_siglip_with_and_without_its_text_tower(tiny_siglip: Path, tmp_path: Path) -> None:
    both = load_file(tiny_siglip / "model.safetensors")
    alone = make_tiny_siglip(tmp_path / "alone", vision_only=True)
    vision = {k.removeprefix("vision_model."): t for k, t in both.items() if k.startswith("vision_model.")}
    assert set(vision) == set(load_file(alone / "model.safetensors"))
    save_file(vision, alone / "model.safetensors")
    one, other = (describe_model(str(path), space="vision") for path in (tiny_siglip, alone))
    assert one.fingerprint == other.fingerprint


def test_the_description_is_what_is_loaded(tiny_llava: Path) -> None:
    described = describe_model(str(tiny_llava))
    assert described == load_encoder(str(tiny_llava)).spec
    assert described.name == "tiny-llava"
    assert (described.encoder_rows, described.encoder_cols) == (27, 27)
    assert (described.grid.rows, described.grid.cols) == (14, 14)
    assert (described.feature_dim, described.token_dim, described.has_row_marker) == (24, 32, True)


def changed(folder: Path, name: str) -> str:
    """Fingerprint after one bit of one tensor was changed."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(torch.uint8).view(-1)[0] ^= 1
    save_file(tensors, folder / "model.safetensors")
    return describe_model(str(folder)).fingerprint


def test_fingerprint_notices_every_used_tensor_and_no_other(tiny_llava: Path, tmp_path: Path) -> None:
    copy = copy_checkpoint(tiny_llava, tmp_path / "copy")
    used = (
        "vision_tower.encoder.layers.2.mlp.fc2.bias",
        "multi_modal_projector.linear_2.weight",
        "vision_tower.embeddings.position_embedding.weight",
        "image_newline",
    )
    seen = [describe_model(str(copy)).fingerprint, *(changed(copy, name) for name in used)]
    assert len(set(seen)) == 5
    for name in ("vision_tower.post_layernorm.weight", "language_model.lm_head.weight"):
        assert changed(copy, name) == seen[-1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_mean", [0.5, 0.5, 0.4]),
        ("image_std", [0.5, 0.5, 0.4]),
        ("resample", 2),
        ("rescale_factor", 0.004),
    ],
)
def test_fingerprint_notices_preprocessing(key: str, value: object, tiny_llava: Path, tmp_path: Path) -> None:
    copy = copy_checkpoint(tiny_llava, tmp_path / "copy")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, key: value}))
    assert describe_model(str(copy)).fingerprint != describe_model(str(tiny_llava)).fingerprint


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("vision_config", "num_attention_heads", 2),
        ("vision_config", "layer_norm_eps", 1e-5),
        ("", "projector_hidden_act", "relu"),
    ],
)
def test_fingerprint_notices_architecture(
    section: str, key: str, value: object, tiny_llava: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny_llava / "config.json").read_text())
    setting = {section: {**config[section], key: value}} if section else {key: value}
    copy = copy_checkpoint(tiny_llava, tmp_path / "copy", **setting)
    assert describe_model(str(copy)).fingerprint != describe_model(str(tiny_llava)).fingerprint


def test_a_projector_without_biases(frames: Tensor, tiny_llava: Path, tmp_path: Path) -> None:
    copy = copy_checkpoint(tiny_llava, tmp_path / "copy", multimodal_projector_bias=False)
    tensors = load_file(copy / "model.safetensors")
    biases = {key: tensor for key, tensor in tensors.items() if "projector" in key and key.endswith("bias")}
    save_file({k: t for k, t in tensors.items() if k not in biases}, copy / "model.safetensors")
    zeros = copy_checkpoint(tiny_llava, tmp_path / "zeros")
    save_file(
        {k: torch.zeros_like(t) if k in biases else t for k, t in tensors.items()},
        zeros / "model.safetensors",
    )
    one, other = (load_encoder(str(path)).encode(frames).tokens for path in (copy, zeros))
    assert torch.equal(one, other)


def test_canonical_names() -> None:
    assert canonical_name("model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias") == (
        "tower.encoder.layers.3.mlp.fc1.bias"
    )
    assert canonical_name("model.mm_projector.2.weight") == "projector.linear_2.weight"
    for unused in (
        "model.layers.0.mlp.up_proj.weight",
        "text_model.encoder.layers.0.mlp.fc1.bias",
        "text_model.embeddings.position_embedding.weight",
        "vision_tower.post_layernorm.weight",
        "vision_model.head.mlp.fc1.weight",
        "vision_model.embeddings.position_ids",
        "model.mm_projector.1.weight",
        "language_model.image_newline",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias.extra",
    ):
        assert canonical_name(unused) is None, unused
    with pytest.raises(CheckpointError, match="twice"):
        canonical_names(["image_newline", "model.image_newline"])
