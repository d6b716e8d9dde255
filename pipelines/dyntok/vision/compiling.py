"""Finding out early whether `torch.compile` works here."""

from __future__ import annotations

import torch
from torch import Tensor

from dyntok.errors import ConfigError


def _probe(values: Tensor) -> Tensor:
    return values * 2 + 1


def check_compiler(device: torch.device) -> None:
    """Compile a trifle on `device`. Raises ConfigError if that fails: the compiler is missing or broken."""
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except RuntimeError as error:  # every error of torch's compiler derives from it
        reason = next(
            (line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__
        )
        raise ConfigError(
            f"torch.compile does not work on {device}: {reason.strip()}",
            hint="install a C++ compiler (and Triton for CUDA), or leave --compile out",
        ) from error
