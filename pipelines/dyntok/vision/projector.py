"""LLaVA's projector, from the tower's features to the LLM's space, alone and trainable."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dyntok.errors import CheckpointError
from dyntok.vision.architecture import Architecture, model_kind, read_architecture
from dyntok.vision.architecture import Projector as ProjectorShape
from dyntok.vision.files import find_checkpoint

_PREFIX = "projector."


class VisionProjector(nn.Module):
    """Two linear layers with an activation between them: features `[..., F]` to tokens `[..., D]`.

    What a store in space `vision` leaves to the LLM stage: pass it as `project=` to `dyntok.splice` or `TokenLM`. The
    parameters are named as in Hugging Face's `multi_modal_projector`: `linear_1.weight`, `linear_1.bias`, ...

    LLaVA projects each of the tower's patches and pools then; this projects what was pooled and merged. The two are the
    same only for a linear projector, so a checkpoint's projector is a start for training here, not its equal.

    Attributes:
        feature_dim, token_dim: F and D.
    """

    def __init__(self, feature_dim: int, shape: ProjectorShape) -> None:
        super().__init__()
        self.feature_dim, self.token_dim = feature_dim, shape.token_dim
        self.linear_1 = nn.Linear(feature_dim, shape.token_dim, bias=shape.bias)
        self.act = activation_of(shape.activation)
        self.linear_2 = nn.Linear(shape.token_dim, shape.token_dim, bias=shape.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Compute in the dtype of the parameters, whatever the dtype of the features."""
        hidden = self.act(self.linear_1(features.to(self.linear_1.weight.dtype)))
        projected: Tensor = self.linear_2(hidden)
        return projected

    @classmethod
    def from_checkpoint(
        cls,
        model: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> VisionProjector:
        """The projector of `model` (hub id, folder or `demo`); of the weights, nothing else is read.

        Raises CheckpointError: there is no such checkpoint, or it has no projector.
        """
        architecture, tensors = _find(model, revision)
        if architecture.projector is None:
            raise CheckpointError(f"{model} has no projector into an LLM's space")
        with torch.device("meta"):
            projector = cls(architecture.hidden_size, architecture.projector)
        weights = {name.removeprefix(_PREFIX): value.to(device, dtype, copy=True) for name, value in tensors}
        projector.load_state_dict(weights, strict=True, assign=True)
        return projector.requires_grad_(True)


def activation_of(name: str) -> nn.Module:
    """The activation that a config names. Raises CheckpointError if transformers does not know it."""
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise CheckpointError(f"the config names the activation {name!r}, which transformers does not know")
    activation: nn.Module = ACT2FN[name]
    return activation


def _find(model: str, revision: str | None) -> tuple[Architecture, Iterable[tuple[str, Tensor]]]:
    """A model's architecture, and the projector's tensors."""
    if model == "demo":
        from dyntok.vision import demo

        tensors = demo.make_tensors().items()
        return demo.ARCHITECTURE, [(name, value) for name, value in tensors if name.startswith(_PREFIX)]
    files = find_checkpoint(model, revision)
    architecture = read_architecture(model_kind(files.config), files.config, files.shapes, "llm")
    shapes = architecture.tensor_shapes().items()
    expected = {name: shape for name, shape in shapes if name.startswith(_PREFIX)}
    return architecture, files.read(files.fitting(expected, "projector"))
