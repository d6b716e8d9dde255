"""The demo model reacts to what is in a picture, and is the same everywhere."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from dyntok.vision import describe_model, load_encoder
from tests.vision.conftest import resized_frames


def similarities(features: Tensor) -> Tensor:
    """[T, R, C-1]."""
    return torch.nn.functional.cosine_similarity(features[:, :, 1:], features[:, :, :-1], dim=-1)


def kept(features: Tensor, threshold: float) -> float:
    """Share of tokens that remain: row starts, and patches unlike their left neighbour."""
    boundaries = (similarities(features) <= threshold).sum().item() + math.prod(features.shape[:2])
    return boundaries / math.prod(features.shape[:3])


def test_kept_share_on_real_clips(clip_folder: Path) -> None:
    encoder = load_encoder("demo")
    total = torch.zeros(3)
    clips = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
    for clip in clips:
        features = encoder.encode(resized_frames(clip_folder / clip, [0, 20, 40, 60, 80, 100])).features
        shares = torch.tensor([kept(features, threshold) for threshold in (0.4, 0.5, 0.6)])
        assert 0.1 < shares[0] < shares[1] < shares[2] < 0.6, clip
        total += shares / len(clips)
    assert 0.15 < total[0] < 0.25 and 0.25 < total[1] < 0.35 and 0.35 < total[2] < 0.5


def test_flat_areas_merge_and_edges_do_not() -> None:
    """Patches 0-6 of each row are dark, 7-13 bright and striped: one edge, two quiet halves."""
    image = torch.full((1, 384, 384, 3), 40, dtype=torch.uint8)
    image[:, :, 192:, 0] = 230
    similarity = similarities(load_encoder("demo").encode(image).features)
    edge = 6  # between col 6 and col 7
    assert similarity[..., :edge].min() > 0.95
    assert similarity[..., edge + 1 :].min() > 0.95
    assert similarity[..., edge].max() < 0.7


def test_noise_does_not_merge_and_a_black_frame_does() -> None:
    noise = torch.randint(0, 256, (1, 384, 384, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = load_encoder("demo")
    black = encoder.encode(torch.zeros_like(noise)).features
    assert torch.isfinite(black).all()
    assert kept(black, 0.99) == 1 / 14
    assert kept(encoder.encode(noise).features, 0.9) > 0.8


def test_tokens_differ_where_pictures_differ(frames: Tensor) -> None:
    encoder = load_encoder("demo")
    tokens = encoder.encode(frames).tokens
    assert tokens.shape == (4, 14, 14, 128)
    assert (tokens[0] - tokens[2]).abs().mean() > 0.05
    assert encoder.row_marker is not None and encoder.row_marker.shape == (128,)


def test_the_same_on_every_machine() -> None:
    """Change these with `_FRONT_END` or the model's formulas only: stores made with the demo model carry them."""
    assert describe_model("demo").fingerprint == ("bd38e9e7a2733b6b2c7901f2e96b18256a0fe0f4d6389c094550b856035e590f")
    assert describe_model("demo", space="vision").fingerprint == (
        "cf62bb9db4c06e35e05fa3fdb85a4be60c36e61afa530c3fe8f45209bb0b4670"
    )


def test_space_vision_has_the_same_features(frames: Tensor) -> None:
    llm, vision = load_encoder("demo"), load_encoder("demo", space="vision")
    assert torch.equal(vision.encode(frames).tokens, llm.encode(frames).features)
    assert vision.row_marker is None and not vision.spec.has_row_marker


def test_other_precisions_are_close(frames: Tensor) -> None:
    exact = load_encoder("demo").encode(frames)
    for precision, tolerance in (("bfloat16", 0.05), ("float16", 0.005)):
        encoder = load_encoder("demo", precision=precision)
        rough = encoder.encode(frames)
        assert rough.tokens.dtype == encoder.dtype == getattr(torch, precision)
        error = (rough.tokens.float() - exact.tokens).norm() / exact.tokens.norm()
        assert error < tolerance
