"""Tiny checkpoints made by transformers, and frames of real clips resized by PIL."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dyntok.testing import make_tiny_llava, make_tiny_siglip, make_tiny_siglip2, rename_to_lmms_lab


def resized_frames(clip: Path, indices: list[int], size: int = 384) -> Tensor:
    """uint8 [T, size, size, 3], squashed with PIL's bicubic filter."""
    frames = []
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                image = Image.fromarray(frame.to_ndarray(format="rgb24"))
                frames.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
            if index >= max(indices):
                break
    return torch.from_numpy(np.stack(frames))


@pytest.fixture(scope="session")
def frames(bikes: Path, carphone: Path) -> Tensor:
    """Two frames of each of two clips."""
    return torch.cat([resized_frames(bikes, [0, 60]), resized_frames(carphone, [0, 60])])


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("checkpoints") / "tiny-llava")


@pytest.fixture(scope="session")
def tiny_lmms(tiny_llava: Path) -> Path:
    return rename_to_lmms_lab(tiny_llava, tiny_llava.parent / "tiny-lmms")


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_siglip(tmp_path_factory.mktemp("checkpoints") / "tiny-siglip")


@pytest.fixture(scope="session")
def tiny_siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_siglip2(tmp_path_factory.mktemp("checkpoints") / "tiny-siglip2")
