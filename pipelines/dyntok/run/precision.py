"""Which arithmetic `precision: auto` means: that of the device where the model will run."""

from __future__ import annotations

import torch

from dyntok.config import EncodeConfig
from dyntok.run.executors import chosen, ray_address


def resolve_precision(config: EncodeConfig) -> EncodeConfig:
    """Replace `auto` by the arithmetic it means on the chosen device, since it decides the bytes.

    Raises RunError if that takes a look at a Ray cluster which cannot be reached.
    """
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": "bfloat16" if _on_accelerator(config) else "float32"})


def _on_accelerator(config: EncodeConfig) -> bool:
    if config.device != "auto":
        return config.device.startswith(("cuda", "mps"))
    if chosen(config) == "ray":
        if config.gpus_per_actor is not None:
            return config.gpus_per_actor > 0
        if (address := ray_address(config)) is not None:
            from dyntok.run.executors.ray.session import cluster_has_gpus

            return cluster_has_gpus(address)
        return torch.cuda.is_available()
    return torch.cuda.is_available() or torch.backends.mps.is_available()
