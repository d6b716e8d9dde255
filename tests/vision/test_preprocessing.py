"""Preprocessing follows transformers: which file counts, and the arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dyntok.errors import CheckpointError
from dyntok.vision.preprocessing import Preprocessing, normalize, read_preprocessing

OWN = {"size": {"height": 384, "width": 384}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


def test_without_files_it_is_siglips() -> None:
    assert read_preprocessing({}, 384) == Preprocessing(384, 384, (0.5,) * 3, (0.5,) * 3, 1 / 255, "bicubic")


def test_which_file_counts() -> None:
    nested = {"processor_config.json": {"video_processor": OWN, "image_processor": {}}}
    video = {"video_preprocessor_config.json": OWN}
    image = {"preprocessor_config.json": OWN}
    other: dict[str, Any] = {"image_mean": 0.9}
    for files in (
        nested | {"video_preprocessor_config.json": other, "preprocessor_config.json": other},
        {"processor_config.json": {"image_processor": other}} | video | {"preprocessor_config.json": other},
        {"processor_config.json": {"num_image_tokens": 729}} | image,
        {"processor_config.json": {"image_processor": OWN}},
    ):
        assert read_preprocessing(files, 384).mean == (0.1, 0.2, 0.3)


def test_absent_values_are_the_processors_defaults() -> None:
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    read = read_preprocessing(
        {"video_preprocessor_config.json": {"video_processor_type": "LlavaOnevisionVideoProcessor"}}, 384
    )
    assert read.mean == tuple(OPENAI_CLIP_MEAN)
    assert read.std == tuple(OPENAI_CLIP_STD)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
        ({"do_rescale": False}, {"rescale": 1.0}),
        ({"rescale_factor": 0.5}, {"rescale": 0.5}),
        ({"resample": 2}, {"resample": "bilinear"}),
        ({"image_mean": 0.25}, {"mean": (0.25, 0.25, 0.25)}),
        ({"size": [384, 384]}, {}),
        ({"size": 384}, {}),
        (
            {
                "do_center_crop": True,
                "crop_size": {"height": 384, "width": 384},
                "size": {"height": 384, "width": 384},
            },
            {},
        ),
    ],
)
def test_settings(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    read = read_preprocessing({"preprocessor_config.json": settings}, 384)
    default = Preprocessing(384, 384)
    for field in ("height", "width", "mean", "std", "rescale", "resample"):
        assert getattr(read, field) == expected.get(field, getattr(default, field)), field


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 384}},
        {"resample": 0},
        {"do_resize": False},
        {"do_center_crop": True, "crop_size": {"height": 336, "width": 336}},
        {"image_std": [0.5, 0.5, 0]},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "grey"},
    ],
)
def test_settings_that_cannot_be_served(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        read_preprocessing({"preprocessor_config.json": settings}, 384)


def test_arithmetic_is_that_of_transformers(frames: Tensor) -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    mean, std = (0.48, 0.45, 0.4), (0.26, 0.27, 0.28)
    processor = SiglipImageProcessorPil(size={"height": 384, "width": 384}, image_mean=mean, image_std=std)
    theirs = np.stack(processor([frame.numpy() for frame in frames])["pixel_values"])

    ours = normalize(frames, Preprocessing(384, 384, mean, std), torch.float32)

    assert ours.shape == (4, 3, 384, 384)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    # Rounded once, at the end: a computation in bfloat16 would be off by whole levels.
    assert torch.equal(normalize(frames, Preprocessing(384, 384, mean, std), torch.bfloat16), ours.bfloat16())
