"""The tokens and features are those of transformers' own models, loaded the ordinary way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dyntok.testing import make_tiny_llava
from dyntok.vision import load_encoder
from tests.vision.conftest import resized_frames

ROWS = COLS = 14


def pixel_values(frames: Tensor, folder: Path) -> Tensor:
    """What transformers' own image processor makes of frames that need no resizing."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil.from_pretrained(folder)
    images = [Image.fromarray(frame.numpy()) for frame in frames]
    return torch.from_numpy(np.stack(processor(images)["pixel_values"])).float()


def reference_llava(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()


def video_tokens(model: Any, pixels: Tensor) -> Tensor:
    """[T, R, C, D] of transformers' video path, without the newline it puts at the end."""
    with torch.inference_mode():
        output = model.model.get_video_features(pixels[None]).pooler_output
    assert torch.equal(output[0, -1], model.model.image_newline)
    return output[0, :-1].reshape(len(pixels), ROWS, COLS, -1)


def output_of_layer(tower: nn.Module, layer: int, run: Any) -> Tensor:
    """What `tower.encoder.layers[layer]` returns while `run()` is going on: no convention of hidden_states."""
    seen: list[Tensor] = []
    hook = tower.encoder.layers[layer].register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.inference_mode():
        run()
    hook.remove()
    assert len(seen) == 1
    return seen[0]


def pooled(features: Tensor, side: int) -> Tensor:
    """LLaVA's pooling, written out by hand for an odd or even side: [B, side*side, F] -> [B, R, C, F]."""
    grid = features.reshape(len(features), side, side, -1).double()
    size = -(-side // 2)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * side / size - 0.5
    low = centre.floor().clamp(0, side - 1).long()
    high = (low + 1).clamp(max=side - 1)
    weight = (centre.clamp(min=0) - low)[:, None]
    rows = grid[:, low] * (1 - weight[..., None]) + grid[:, high] * weight[..., None]
    return rows[:, :, low] * (1 - weight) + rows[:, :, high] * weight


@pytest.mark.parametrize("feature_layer", [-1, -2, 1, 2])
def test_tokens_equal_get_video_features(feature_layer: int, frames: Tensor, tmp_path: Path) -> None:
    folder = make_tiny_llava(tmp_path / "m", seed=3, feature_layer=feature_layer)
    expected = video_tokens(reference_llava(folder), pixel_values(frames, folder))

    actual = load_encoder(str(folder)).encode(frames)

    assert actual.tokens.shape == (4, ROWS, COLS, 32)
    assert expected.std() > 0.1
    torch.testing.assert_close(actual.tokens, expected, atol=1e-4, rtol=0)


def test_bfloat16_tokens_are_as_close_as_transformers_own(frames: Tensor, tiny_llava: Path) -> None:
    pixels = pixel_values(frames, tiny_llava)
    exact = video_tokens(reference_llava(tiny_llava), pixels)
    theirs = video_tokens(reference_llava(tiny_llava, torch.bfloat16), pixels.bfloat16())

    ours = load_encoder(str(tiny_llava), precision="bfloat16").encode(frames)

    assert ours.tokens.dtype == torch.bfloat16
    assert ours.features.dtype == torch.float32
    error = (ours.tokens.float() - exact).abs().mean()
    assert error <= 1.05 * (theirs.float() - exact).abs().mean()


@pytest.mark.parametrize("feature_layer", [-1, -2])
def test_features_are_the_hooked_layer_before_any_norm(feature_layer: int, frames: Tensor, tmp_path: Path) -> None:
    folder = make_tiny_llava(tmp_path / "m", feature_layer=feature_layer)
    model, pixels = reference_llava(folder), pixel_values(frames, folder)
    tower = model.model.vision_tower
    hidden = output_of_layer(tower, feature_layer, lambda: tower(pixels))

    features = load_encoder(str(folder)).encode(frames).features

    torch.testing.assert_close(features, pooled(hidden, 27).float(), atol=1e-5, rtol=1e-5)


def test_llava_tower_alone_in_space_vision(frames: Tensor, tiny_llava: Path) -> None:
    llm, vision = load_encoder(str(tiny_llava)), load_encoder(str(tiny_llava), space="vision")
    with_projector, without = llm.encode(frames), vision.encode(frames)

    assert torch.equal(without.tokens, with_projector.features)
    assert torch.equal(without.features, with_projector.features)
    assert vision.row_marker is None
    assert vision.spec.token_dim == vision.spec.feature_dim == 24
    assert vision.spec.fingerprint != llm.spec.fingerprint


def test_siglip_feature_is_the_last_but_one_layer(frames: Tensor, tiny_siglip: Path) -> None:
    from transformers import SiglipModel

    tower = SiglipModel.from_pretrained(tiny_siglip).eval().vision_model
    pixels = pixel_values(frames, tiny_siglip)
    hidden = output_of_layer(tower, -2, lambda: tower(pixels))

    encoder = load_encoder(str(tiny_siglip), space="vision")

    torch.testing.assert_close(encoder.encode(frames).features, pooled(hidden, 27).float(), atol=1e-5, rtol=1e-5)
    assert encoder.spec.kind == "siglip"


def test_naflex_siglip2_at_its_square_resolution(bikes: Path, tiny_siglip2: Path) -> None:
    from transformers import Siglip2VisionModel
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    frames = resized_frames(bikes, [0, 60], size=256)
    tower = Siglip2VisionModel.from_pretrained(tiny_siglip2).eval()
    inputs = Siglip2ImageProcessorPil.from_pretrained(tiny_siglip2)(
        [Image.fromarray(frame.numpy()) for frame in frames], return_tensors="pt"
    )
    assert inputs["spatial_shapes"].tolist() == [[16, 16]] * 2
    hidden = output_of_layer(tower, -2, lambda: tower(**inputs))

    encoder = load_encoder(str(tiny_siglip2), space="vision")

    assert (encoder.spec.kind, encoder.spec.height, encoder.spec.resample) == ("siglip2", 256, "bilinear")
    torch.testing.assert_close(encoder.encode(frames).features, pooled(hidden, 16).float(), atol=1e-4, rtol=1e-4)


def test_row_marker_is_image_newline(tiny_llava: Path) -> None:
    marker = load_encoder(str(tiny_llava), precision="bfloat16").row_marker
    assert marker is not None
    assert marker.dtype == torch.float32
    assert torch.equal(marker, reference_llava(tiny_llava).model.image_newline)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_frame_does_not_depend_on_its_batch(precision: str, frames: Tensor, tiny_llava: Path) -> None:
    """Neither on its place, nor on its neighbours, nor on the number of frames."""
    encoder = load_encoder(str(tiny_llava), precision=precision)
    together = encoder.encode(frames)
    shuffled = encoder.encode(frames[[3, 1, 0]])

    for one, other in ((together.tokens, shuffled.tokens), (together.features, shuffled.features)):
        assert torch.equal(one[[3, 1, 0]], other)
        assert not torch.equal(one[0], one[1])


def test_a_frame_does_not_depend_on_its_batch_at_the_width_of_so400m(frames: Tensor) -> None:
    """Matrix products of this size do depend on the batch where frames are multiplied together."""
    from dyntok.vision.architecture import Architecture
    from dyntok.vision.encoder import VisualEncoder
    from dyntok.vision.preprocessing import Preprocessing
    from dyntok.vision.tower import build_front_end

    architecture = Architecture(1152, 4304, 16, 1, 14, 384, "gelu_pytorch_tanh", 1e-6)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        for name, shape in architecture.tensor_shapes().items()
    }
    cpu = torch.device("cpu")
    model = build_front_end(architecture, weights, cpu)
    spec = load_encoder("demo").spec
    encoder = VisualEncoder(spec, model, Preprocessing(384, 384), None, cpu, torch.float32)

    together = encoder.encode(frames[:3]).features

    assert torch.equal(encoder.encode(frames[[2, 0, 1]]).features, together[[2, 0, 1]])
    assert torch.equal(encoder.encode(frames[1:2]).features, together[1:2])


def test_two_threads_give_the_same_bits_as_one(frames: Tensor) -> None:
    encoder = load_encoder("demo")
    one = encoder.encode(frames)
    torch.set_num_threads(2)
    try:
        two = encoder.encode(frames)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.features, two.features)
