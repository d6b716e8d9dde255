"""The `demo` model: a small visual front end made from formulas, so that everything runs without a download.

It has SigLIP's interface (384 x 384 images, patches of 14, a 27 x 27 grid pooled to 14 x 14) and runs through the same
code as a real checkpoint, but nothing in it is learned, and no LLM knows its tokens. Its 64 features a patch are

- 63 contrasts: the lowest frequencies, in zigzag order, of a patch's discrete cosine transform, 39 of luminance, 12
  of red-green and 12 of green-magenta; the lowest of each is the mean colour, which counts less than detail;
- one constant, which makes flat dark, grey and bright patches alike.

One encoder layer follows. Its attention weighs all patches alike and takes a share of the frame's mean away;
its MLP adds to each detail its own magnitude, so that textures are similar wherever their phase falls. So flat
areas merge and edges do not. The gains were set on real clips, to keep on average about 20, 30 and 40 % of the
tokens at thresholds 0.4, 0.5 and 0.6, much as published for SigLIP. The projector is pseudo-random. All values
are exact in binary and the same on every machine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dyntok.vision.architecture import Architecture, Projector
from dyntok.vision.preprocessing import Preprocessing

ARCHITECTURE = Architecture(
    hidden_size=64,
    intermediate_size=128,
    heads=2,
    layers=1,
    patch_size=14,
    image_size=384,
    activation="relu",
    layer_norm_eps=1e-6,
    projector=Projector(token_dim=128, activation="gelu", bias=True),
)
TOWER = replace(ARCHITECTURE, projector=None)
PREPROCESSING = Preprocessing(height=384, width=384)

_Array = npt.NDArray[np.float64]

# Luminance, red-green, green-magenta; orthogonal.
_COLOURS = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]]) / np.sqrt([[3.0], [2.0], [1.5]])
_FREQUENCIES = (39, 12, 12)
_MEAN_GAINS = (0.5, 2.0, 2.0)
_DETAIL_GAINS = (6.0, 12.0, 12.0)
_CONSTANT = 0.5
_MEAN_TAKEN_AWAY = 0.2
_MAGNITUDE_ADDED = 0.3
_SEED = 0x64796E746F6B  # "dyntok"


def make_tower_tensors() -> dict[str, Tensor]:
    """The tower's tensors by canonical name."""
    width, patch = ARCHITECTURE.hidden_size, ARCHITECTURE.patch_size
    kernels, is_detail = _filter_bank(patch)
    contrast = np.ones(width)
    contrast[-1] = 0
    keep = np.eye(width)
    layer = "tower.encoder.layers.0."
    values: dict[str, _Array] = {
        "tower.embeddings.patch_embedding.weight": kernels,
        "tower.embeddings.patch_embedding.bias": _CONSTANT * (1 - contrast),
        f"{layer}layer_norm1.weight": np.ones(width),
        f"{layer}layer_norm2.weight": np.ones(width),
        f"{layer}self_attn.v_proj.weight": keep,
        f"{layer}self_attn.out_proj.weight": -_MEAN_TAKEN_AWAY * np.diag(contrast),
        f"{layer}mlp.fc1.weight": np.concatenate([keep, -keep]),
        f"{layer}mlp.fc2.weight": _MAGNITUDE_ADDED * np.concatenate([np.diag(is_detail)] * 2, axis=1),
    }
    shapes = TOWER.tensor_shapes()
    return {name: _tensor(values.get(name, np.zeros(shape))) for name, shape in shapes.items()}


def make_tensors() -> dict[str, Tensor]:
    """All tensors by canonical name: tower, projector and row marker."""
    shapes = {**ARCHITECTURE.tensor_shapes(), "row_marker": (ARCHITECTURE.token_dim,)}
    tensors = make_tower_tensors()
    random = np.random.Philox(key=_SEED)
    for name in sorted(set(shapes) - set(tensors)):
        shape = shapes[name]
        # Uniform with variance 1 / inputs. Raw bits, because numpy promises their order for ever.
        bits = random.random_raw(int(np.prod(shape))).reshape(shape)
        uniform = (bits >> np.uint64(40)).astype(np.float64) / 2**23 - 1
        tensors[name] = _tensor(uniform * np.sqrt(3 / shape[-1]))
    return tensors


def _filter_bank(patch: int) -> tuple[_Array, _Array]:
    """Kernels `[64, 3, patch, patch]`, the last one zero, and 1.0 for each kernel that has mean zero."""
    waves = np.cos(np.pi * (np.arange(patch) + 0.5) * np.arange(patch)[:, None] / patch)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted(((row, col) for row in range(patch) for col in range(patch)), key=lambda f: (sum(f), f[0]))
    kernels, is_detail = [], []
    for colour, count, mean_gain, gain in zip(_COLOURS, _FREQUENCIES, _MEAN_GAINS, _DETAIL_GAINS, strict=True):
        for row, col in order[:count]:
            wave = np.einsum("c,y,x->cyx", colour, waves[row], waves[col]) / patch
            kernels.append(wave * (gain if row + col else mean_gain))
            is_detail.append(float(row + col > 0))
    return np.stack([*kernels, np.zeros((3, patch, patch))]), np.array([*is_detail, 0.0])


def _tensor(values: _Array) -> Tensor:
    """float32, rounded to multiples of 2**-20: the last bits of cosines differ between maths libraries."""
    return torch.from_numpy((np.round(values * 2**20) / 2**20).astype(np.float32))
