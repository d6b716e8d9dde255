"""One hash for everything in the model that decides the tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import torch
from torch import Tensor

from dyntok.vision.architecture import Architecture
from dyntok.vision.preprocessing import Preprocessing

# Written into every fingerprint. Change it when the same checkpoint would give other tokens.
_FRONT_END = {"version": 1, "pooling": "bilinear, half size rounded up", "order": "project, then pool"}


class Fingerprint:
    """sha256 over architecture, preprocessing, and name, dtype, shape and bytes of each tensor in order of names."""

    def __init__(self, architecture: Architecture, preprocessing: Preprocessing) -> None:
        head = {"front_end": _FRONT_END, "model": asdict(architecture), "input": asdict(preprocessing)}
        self._hash = hashlib.sha256(json.dumps(head, sort_keys=True).encode())

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor. The caller keeps the names sorted."""
        self._hash.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        self._hash.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
