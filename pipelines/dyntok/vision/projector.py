"""LLaVA's projector, from the tower's features to the LLM's space, alone and trainable."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dyntok.errors import CheckpointError
from dyntok.vision.architecture import Projector as ProjectorShape
from dyntok.vision.architecture import model_kind, read_architecture
from dyntok.vision.files import find_checkpoint
from dyntok.vision.layout import stored_layers

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
        from transformers.activations import ACT2FN

        super().__init__()
        if shape.activation not in ACT2FN:
            raise CheckpointError(
                f"the config names the activation {shape.activation!r}, which transformers does not know"
            )
        self.feature_dim, self.token_dim = feature_dim, shape.token_dim
        self.linear_1 = nn.Linear(feature_dim, shape.token_dim, bias=shape.bias)
        self.act = ACT2FN[shape.activation]
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
        feature_dim, shape, tensors = _demo() if model == "demo" else _stored(model, revision)
        with torch.device("meta"):
            projector = cls(feature_dim, shape)
        weights = {
            name.removeprefix(_PREFIX): value.to(device, dtype, copy=True) for name, value in tensors.items()
        }
        projector.load_state_dict(weights, strict=True, assign=True)
        return projector.requires_grad_(True)


def _stored(model: str, revision: str | None) -> tuple[int, ProjectorShape, dict[str, Tensor]]:
    files = find_checkpoint(model, revision)
    kind = model_kind(files.config)
    if kind in ("siglip", "siglip2"):
        raise CheckpointError(
            f"{files.name} is a plain SigLIP: it has no projector into an LLM's space",
            hint="name the LLaVA checkpoint whose projector to start from",
        )
    stored = {name: tensor.shape for name, tensor in files.tensors.items()}
    architecture = read_architecture(kind, files.config, stored, stored_layers(stored), "llm")
    shape = architecture.projector
    expected = {name: dims for name, dims in architecture.tensor_shapes().items() if name.startswith(_PREFIX)}
    if shape is None or not expected.keys() <= stored.keys():
        raise CheckpointError(
            f"{files.name} lacks {next(iter(expected.keys() - stored.keys()), 'a projector')}",
            hint="is it complete, and does config.json belong to it?",
        )
    for name, dims in expected.items():
        if stored[name] != dims:
            raise CheckpointError(
                f"{name} has shape {list(stored[name])}, but config.json implies {list(dims)}",
                hint="config.json and weights do not belong together",
            )
    return architecture.hidden_size, shape, dict(files.read(sorted(expected)))


def _demo() -> tuple[int, ProjectorShape, dict[str, Tensor]]:
    from dyntok.vision import demo

    shape = demo.ARCHITECTURE.projector
    if shape is None:
        raise CheckpointError("the demo model has no projector")
    tensors = {name: value for name, value in demo.make_tensors().items() if name.startswith(_PREFIX)}
    return demo.ARCHITECTURE.hidden_size, shape, tensors
