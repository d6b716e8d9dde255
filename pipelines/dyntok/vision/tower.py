"""The network: SigLIP's layers up to the feature, the projector, and the pooling.

The layers are those of transformers. The model is made without memory (`meta` device) and takes the checkpoint's
tensors as its own, so that weights exist once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder, SiglipVisionEmbeddings

from dyntok.records import Grid
from dyntok.vision.architecture import Architecture
from dyntok.vision.projector import VisionProjector, activation_of


class Tower(nn.Module):
    """SigLIP up to the feature layer: pixel values `[B, 3, H, W]` to features `[B, rows * cols, F]`.

    There is no `post_layernorm` and no head: LLaVA uses neither.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        config = SiglipVisionConfig(
            hidden_size=architecture.hidden_size,
            intermediate_size=architecture.intermediate_size,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            image_size=architecture.image_size,
            patch_size=architecture.patch_size,
            hidden_act=architecture.activation,
            layer_norm_eps=architecture.layer_norm_eps,
            attn_implementation="sdpa",
        )
        self.embeddings = SiglipVisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)

    def forward(self, pixels: Tensor) -> Tensor:
        # The convolution's output is transposed in memory; left so, every layer would work on strided rows.
        patches = self.embeddings(pixels).contiguous()
        hidden: Tensor = self.encoder(inputs_embeds=patches).last_hidden_state
        return hidden


class FrontEnd(nn.Module):
    """Pixel values `[B, 3, H, W]` to pooled features `[B, R, C, F]` and pooled tokens `[B, R, C, D]` (or None)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.side, self.grid = architecture.side, architecture.grid
        self.tower = Tower(architecture)
        self.projector = (
            None
            if architecture.projector is None
            else VisionProjector(architecture.hidden_size, architecture.projector)
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.tower(pixels)
        tokens = None if self.projector is None else self.pool(self.projector(features))
        return self.pool(features), tokens

    def pool(self, values: Tensor) -> Tensor:
        """`[B, side * side, D]` to `[B, R, C, D]`: bilinear, corners not aligned, no antialias (LLaVA's pooling)."""
        return pool_bilinear(values.reshape(len(values), self.side, self.side, -1), self.grid)


def pool_bilinear(values: Tensor, grid: Grid) -> Tensor:
    """`[B, rows, cols, D]` to `[B, R, C, D]`, contiguous."""
    pooled = nn.functional.interpolate(values.permute(0, 3, 1, 2), size=(grid.rows, grid.cols), mode="bilinear")
    return pooled.permute(0, 2, 3, 1).contiguous()


def build_front_end(architecture: Architecture, weights: dict[str, Tensor], device: torch.device) -> FrontEnd:
    """The network around `weights` (canonical names, already on `device` in the dtype to compute in).

    Raises CheckpointError if transformers does not know an activation of the config.
    """
    activation_of(architecture.activation)  # transformers itself raises a KeyError for one that it does not know
    with torch.device("meta"):
        model = FrontEnd(architecture)
    if architecture.linear_patches:
        weights = {**weights, _KERNEL: _as_convolution(weights[_KERNEL], architecture.patch_size)}
    model.load_state_dict(weights, strict=True, assign=True)
    # Not part of a state dict, so still without memory.
    model.tower.embeddings.position_ids = torch.arange(architecture.side**2, device=device).expand(1, -1)
    return model.eval().requires_grad_(False)


_KERNEL = "tower.embeddings.patch_embedding.weight"


def _as_convolution(matrix: Tensor, patch: int) -> Tensor:
    """NaFlex patch embedding `[F, patch * patch * 3]` over (row, col, channel) as a kernel `[F, 3, patch, patch]`."""
    return matrix.view(-1, patch, patch, 3).permute(0, 3, 1, 2).contiguous()
