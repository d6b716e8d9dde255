"""How pixels become the tower's input: size and filter of the resize, scale, mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dyntok.errors import CheckpointError

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
_HALF = (0.5, 0.5, 0.5)
# What LlavaOnevision processors take where their file says nothing (SigLIP's take 0.5).
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Frames are resized to `height x width` with `resample`; then `(pixel * rescale - mean) / std`."""

    height: int
    width: int
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    rescale: float = 1 / 255
    resample: str = "bicubic"


def read_preprocessing(processors: Mapping[str, Mapping[str, Any]], image_size: int) -> Preprocessing:
    """Preprocessing of video frames as the checkpoint's processor files give it; SigLIP's where there are none.

    `processors` maps file names to their content. Raises CheckpointError for steps that dyntok does not do.
    """
    settings = _choose(processors)
    height, width = _size(settings, image_size)
    clip = str(settings.get("video_processor_type", settings.get("image_processor_type"))).startswith("LlavaOne")
    mean = _triple(settings, "image_mean", _CLIP_MEAN if clip else _HALF)
    std = _triple(settings, "image_std", _CLIP_STD if clip else _HALF)
    if not settings.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if 0.0 in std:
        raise CheckpointError("image_std of the preprocessor config holds a zero")
    rescale = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    number = settings.get("resample", 3)
    if number not in _RESAMPLE:
        raise CheckpointError(f"the preprocessor config resizes with filter {number}; dyntok knows 2 and 3")
    return Preprocessing(height, width, mean, std, rescale, _RESAMPLE[number])


def normalize(images: Tensor, preprocessing: Preprocessing, dtype: torch.dtype) -> Tensor:
    """uint8 `[B, H, W, 3]` to pixel values `[B, 3, H, W]` of `dtype`, computed in float32 as transformers does."""
    mean = _per_channel(preprocessing.mean, images.device)
    std = _per_channel(preprocessing.std, images.device)
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.mul_(preprocessing.rescale).sub_(mean).div_(std).to(dtype)


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """`[1, 3, 1, 1]`. Kept, since copying three numbers to a CUDA device waits for all that it has to do."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _choose(processors: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    nested = processors.get("processor_config.json", {})
    candidates = (
        nested.get("video_processor"),
        processors.get("video_preprocessor_config.json"),
        processors.get("preprocessor_config.json"),
        nested.get("image_processor"),
    )
    return next((settings for settings in candidates if isinstance(settings, Mapping)), {})


def _size(settings: Mapping[str, Any], image_size: int) -> tuple[int, int]:
    if "max_num_patches" in settings:  # NaFlex: the size follows from the patch grid, not from a setting
        return image_size, image_size
    size = settings.get("size") or {"height": image_size, "width": image_size}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    if not settings.get("do_resize", True) or crop not in (None, size):
        raise CheckpointError("the preprocessor config crops, or does not resize; dyntok resizes whole frames")
    sides = (size, size) if isinstance(size, int) else _sides(size)
    if sides != (image_size, image_size):
        raise CheckpointError(
            f"the preprocessor config asks for {size}, but the tower's images are {image_size} x {image_size}",
            hint="use the preprocessor_config.json that belongs to this checkpoint",
        )
    return image_size, image_size


def _sides(size: Any) -> tuple[Any, Any]:
    if isinstance(size, list) and len(size) == 2:
        return size[0], size[1]
    return (size.get("height"), size.get("width")) if isinstance(size, Mapping) else (None, None)


def _triple(settings: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, float, float]:
    value = settings.get(key)
    values = list(default if value is None else value if isinstance(value, list) else [value] * 3)
    if len(values) != 3 or not all(isinstance(number, int | float) for number in values):
        raise CheckpointError(f"{key} of the preprocessor config is {value!r}, not three numbers")
    return float(values[0]), float(values[1]), float(values[2])
