"""The shape of a visual front end, as a checkpoint's config and tensors give it.

Which layer is the feature: LLaVA takes the output of SigLIP's last but one layer, before `post_layernorm`.
The lmms-lab code deletes the last layer and takes the last hidden state; the Hugging Face conversion stores one
layer less and takes `vision_feature_layer` -1. For a plain SigLIP, dyntok makes LLaVA's choice. `layers` is the
number of layers that lead to the feature; nothing after them is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dyntok.errors import CheckpointError
from dyntok.records import Grid
from dyntok.vision.layout import stored_layers

# Heads and depth of the published SigLIP sizes (base, large, so400m, giant) by width: an lmms-lab config names its
# tower but does not describe it.
_SIGLIP_SIZES = {768: (12, 12), 1024: (16, 24), 1152: (16, 27), 1536: (16, 40)}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Projector:
    """Two linear layers with an activation between them, to the LLM's width `token_dim`."""

    token_dim: int
    activation: str
    bias: bool


@dataclass(frozen=True, slots=True)
class Architecture:
    """Tower (SigLIP encoder without its end), optional projector, pooling by two.

    `linear_patches` marks NaFlex SigLIP2, whose patch embedding is stored as a matrix over (row, col, channel).
    """

    hidden_size: int
    intermediate_size: int
    heads: int
    layers: int
    patch_size: int
    image_size: int
    activation: str
    layer_norm_eps: float
    linear_patches: bool = False
    projector: Projector | None = None

    def __post_init__(self) -> None:
        sizes = (self.hidden_size, self.intermediate_size, self.heads, self.patch_size, self.image_size)
        if not all(isinstance(size, int) and 0 < size <= 65536 for size in (*sizes, self.token_dim)):
            raise CheckpointError(f"the model's config has a size out of range: {self}")
        if self.hidden_size % self.heads:
            raise CheckpointError(f"{self.heads} attention heads do not divide a width of {self.hidden_size}")
        if not 0 <= self.layers <= 1024 or not 1 <= self.side <= 255:
            raise CheckpointError(f"the model's config has a depth or patch grid out of range: {self}")

    @property
    def side(self) -> int:
        """Rows (and columns) of the tower's patch grid, 27 for so400m-384."""
        return self.image_size // self.patch_size

    @property
    def grid(self) -> Grid:
        """The grid after pooling by two, rounded up."""
        return Grid(math.ceil(self.side / 2), math.ceil(self.side / 2))

    @property
    def token_dim(self) -> int:
        """Width of a stored token."""
        return self.hidden_size if self.projector is None else self.projector.token_dim

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that must be there, by canonical name (the row marker is optional)."""
        width, patch = self.hidden_size, self.patch_size
        kernel = (width, patch * patch * 3) if self.linear_patches else (width, 3, patch, patch)
        shapes: dict[str, tuple[int, ...]] = {
            "tower.embeddings.patch_embedding.weight": kernel,
            "tower.embeddings.patch_embedding.bias": (width,),
            "tower.embeddings.position_embedding.weight": (self.side**2, width),
        }
        for layer in range(self.layers):
            shapes |= self._layer_shapes(f"tower.encoder.layers.{layer}.")
        if self.projector is not None:
            out = self.projector.token_dim
            shapes["projector.linear_1.weight"] = (out, width)
            shapes["projector.linear_2.weight"] = (out, out)
            if self.projector.bias:
                shapes["projector.linear_1.bias"] = shapes["projector.linear_2.bias"] = (out,)
        return shapes

    def _layer_shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        width, inner = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{prefix}{norm}.weight"] = shapes[f"{prefix}{norm}.bias"] = (width,)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{prefix}self_attn.{part}.weight"] = (width, width)
            shapes[f"{prefix}self_attn.{part}.bias"] = (width,)
        for part, rows, cols in (("fc1", inner, width), ("fc2", width, inner)):
            shapes[f"{prefix}mlp.{part}.weight"] = (rows, cols)
            shapes[f"{prefix}mlp.{part}.bias"] = (rows,)
        return shapes


def model_kind(config: Mapping[str, Any]) -> str:
    """`llava-hf`, `llava-lmms`, `siglip` or `siglip2`. Raises CheckpointError for any other model."""
    model_type = config.get("model_type")
    if "mm_vision_tower" in config:
        return "llava-lmms"
    if model_type == "llava_onevision":
        return "llava-hf"
    if model_type in ("siglip", "siglip_vision_model"):
        return "siglip"
    if model_type in ("siglip2", "siglip2_vision_model"):
        return "siglip2"
    raise CheckpointError(
        f"config.json describes a model of type {model_type!r}, which dyntok does not know",
        hint="use LLaVA-OneVision or LLaVA-Video (Hugging Face or lmms-lab layout), SigLIP or SigLIP2",
    )


def read_architecture(kind: str, config: Mapping[str, Any], shapes: Shapes, space: str) -> Architecture:
    """The architecture of a checkpoint.

    `shapes` gives the stored shapes by canonical name. Raises CheckpointError if the config asks for something that
    dyntok does not do.
    """
    if kind == "llava-lmms":
        return _from_lmms(config, shapes, space)
    if kind == "llava-hf":
        return _from_llava_hf(config, space)
    if space != "vision":
        raise CheckpointError(
            "this is a plain SigLIP checkpoint: it has no projector into an LLM's space",
            hint="add `--space vision` to store tower features, or name a LLaVA checkpoint",
        )
    vision = _section(config, "vision_config") if kind == config.get("model_type") else config
    total = vision.get("num_hidden_layers", 12)
    return _siglip(vision, layers=_int(total, "num_hidden_layers") - 1, linear_patches=kind == "siglip2")


def _siglip(vision: Mapping[str, Any], *, layers: int, linear_patches: bool = False) -> Architecture:
    # Absent values mean the defaults of transformers' SiglipVisionConfig: published configs rely on them.
    if _int(vision.get("num_channels", 3), "num_channels") != 3:
        raise CheckpointError("the vision tower does not take RGB images (num_channels is not 3)")
    patch = _square(vision.get("patch_size", 16), "patch_size")
    if linear_patches:
        side = math.isqrt(_int(vision.get("num_patches", 256), "num_patches"))
        if side**2 != vision.get("num_patches", 256):
            raise CheckpointError("num_patches of this SigLIP2 is not a square, so it has no square resolution")
        image = side * patch
    else:
        image = _square(vision.get("image_size", 224), "image_size")
    return Architecture(
        hidden_size=_int(vision.get("hidden_size", 768), "hidden_size"),
        intermediate_size=_int(vision.get("intermediate_size", 3072), "intermediate_size"),
        heads=_int(vision.get("num_attention_heads", 12), "num_attention_heads"),
        layers=layers,
        patch_size=patch,
        image_size=image,
        activation=str(vision.get("hidden_act", "gelu_pytorch_tanh")),
        layer_norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
        linear_patches=linear_patches,
    )


def _from_llava_hf(config: Mapping[str, Any], space: str) -> Architecture:
    vision = _section(config, "vision_config")
    if (tower := vision.get("model_type", "siglip_vision_model")) != "siglip_vision_model":
        raise CheckpointError(
            f"the vision tower is {tower!r}", hint="dyntok reads LLaVA checkpoints with a SigLIP tower"
        )
    if config.get("vision_feature_select_strategy", "full") != "full":
        raise CheckpointError(
            "vision_feature_select_strategy is not `full`: it would cut the first patch of a SigLIP tower",
            hint='set "vision_feature_select_strategy": "full" in config.json if that is what was trained',
        )
    total = _int(vision.get("num_hidden_layers", 12), "num_hidden_layers")
    bare = _siglip(vision, layers=_feature_layer(config.get("vision_feature_layer", -1), total))
    if space == "vision":
        return bare
    projector = Projector(
        token_dim=_int(_section(config, "text_config").get("hidden_size"), "text_config.hidden_size"),
        activation=str(config.get("projector_hidden_act", "gelu")),
        bias=bool(config.get("multimodal_projector_bias", True)),
    )
    return replace(bare, projector=projector)


def _feature_layer(chosen: Any, total: int) -> int:
    """How many layers lead to `hidden_states[chosen]`, where state 0 is the input of the first layer."""
    if isinstance(chosen, list):
        if len(chosen) != 1:
            raise CheckpointError(
                f"vision_feature_layer {chosen} joins several layers; dyntok takes the output of one",
                hint="use a checkpoint with one feature layer, as LLaVA-OneVision has",
            )
        chosen = chosen[0]
    if not isinstance(chosen, int) or not -total - 1 <= chosen <= total:
        raise CheckpointError(f"vision_feature_layer {chosen!r} is not a layer of a tower with {total}")
    return chosen if chosen >= 0 else total + 1 + chosen


def _from_lmms(config: Mapping[str, Any], shapes: Shapes, space: str) -> Architecture:
    pooling = config.get("mm_spatial_pool_mode") or "bilinear"
    projector_type = config.get("mm_projector_type")
    if pooling != "bilinear" or (space == "llm" and projector_type != "mlp2x_gelu"):
        raise CheckpointError(
            f"pooling {pooling!r} and projector {projector_type!r} are not those of LLaVA-OneVision and LLaVA-Video",
            hint="dyntok does bilinear pooling and the projector mlp2x_gelu",
        )
    kernel = _lmms_shape(shapes, "tower.embeddings.patch_embedding.weight", 4)
    positions = _lmms_shape(shapes, "tower.embeddings.position_embedding.weight", 2)[0]
    described = _section(config, "vision_config")
    width, patch = kernel[0], kernel[2]
    if width not in _SIGLIP_SIZES and not {"num_attention_heads", "num_hidden_layers"} <= set(described):
        raise CheckpointError(
            f"the tower is {width} wide, which is no published SigLIP, so its heads and depth are unknown",
            hint="add a vision_config with num_attention_heads and num_hidden_layers (of the whole tower) to "
            "config.json",
        )
    heads, total = _SIGLIP_SIZES.get(width, (0, 0))
    total = _int(described.get("num_hidden_layers", total), "num_hidden_layers")
    bare = Architecture(
        hidden_size=width,
        intermediate_size=shapes.get("tower.encoder.layers.0.mlp.fc1.weight", (1,))[0],
        heads=_int(described.get("num_attention_heads", heads), "num_attention_heads"),
        layers=total - 1,
        patch_size=patch,
        image_size=_lmms_image_size(str(config["mm_vision_tower"]), math.isqrt(positions), patch),
        activation=str(described.get("hidden_act", "gelu_pytorch_tanh")),
        layer_norm_eps=float(described.get("layer_norm_eps", 1e-6)),
    )
    if (depth := stored_layers(shapes)) < bare.layers:
        raise CheckpointError(f"the tower has {depth} layers, but its feature is the output of layer {bare.layers}")
    if space == "vision":
        return bare
    token_dim = _int(config.get("hidden_size"), "hidden_size")
    return replace(bare, projector=Projector(token_dim=token_dim, activation="gelu", bias=True))


def _lmms_image_size(tower_name: str, side: int, patch: int) -> int:
    """Image size out of the tower's name (`...-384`), if its patch grid is the stored one; else the exact grid."""
    tail = tower_name.rstrip("/").rsplit("-", 1)[-1]
    if tail.isdecimal() and len(tail) <= 4 and int(tail) // patch == side:
        return int(tail)
    return 384 if 384 // patch == side else side * patch


def _lmms_shape(shapes: Shapes, name: str, dims: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(
            f"the checkpoint holds no SigLIP vision tower ({name} is missing)",
            hint="LLaVA saves the tower if it was fine-tuned; if it was frozen, merge its weights into the checkpoint",
        )
    if len(shapes[name]) != dims or 0 in shapes[name]:
        raise CheckpointError(f"{name} has shape {list(shapes[name])}; this is not a SigLIP tower")
    return shapes[name]


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = config.get(key) or {}
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{key} in config.json is not an object")
    return section


def _int(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"{key} in config.json is {value!r}, not a whole number")
    return value


def _square(value: Any, key: str) -> int:
    sides = list(value) if isinstance(value, list) else [value]
    if len(set(sides)) != 1:
        raise CheckpointError(f"{key} {value!r} is not square", hint="dyntok reads towers for square images")
    return _int(sides[0], key)
