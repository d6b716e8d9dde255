"""From a real clip to stored tokens, against Hugging Face's own model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import dyntok
from dyntok.records import SourceRef
from dyntok.run import encode
from dyntok.run.settings import decode_settings
from dyntok.testing.checkpoints import make_tiny_llava, rename_to_lmms_lab
from dyntok.video import decode_frames
from dyntok.vision import describe_model
from tests.support.runs import demo_config, result_digests

FRAMES = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("llava") / "tiny")


def settings(model: Path) -> dict[str, object]:
    return {
        "model": str(model),
        "frames": FRAMES,
        "thresholds": (0.5, 1.0),
        "dtype": "float32",
        "precision": "float32",
    }


def test_unmerged_tokens_and_one_marker_are_what_the_model_feeds_its_llm(
    checkpoint: Path, bikes: Path, tmp_path: Path
) -> None:
    from transformers import LlavaOnevisionForConditionalGeneration, SiglipImageProcessorPil

    config = demo_config(**settings(checkpoint))
    encode([str(bikes)], str(tmp_path / "out"), config)
    store = dyntok.open(tmp_path / "out")
    stored = store["bikes.mp4"].at(threshold=1.0)
    marker = store.row_marker
    assert marker is not None

    decoding = decode_settings(config, describe_model(str(checkpoint)))
    with decode_frames(SourceRef(str(bikes)), decoding) as video:
        images = np.stack(list(video.images()))
    processor = SiglipImageProcessorPil(
        size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model.model.get_video_features(pixels[None]).pooler_output[0]
    assert expected.shape == (FRAMES * 196 + 1, stored.tokens.shape[1])
    actual = torch.cat([stored.tokens, marker[None]])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_the_same_weights_in_the_lmms_lab_layout_give_the_same_bytes(
    checkpoint: Path, carphone: Path, tmp_path: Path
) -> None:
    renamed = rename_to_lmms_lab(checkpoint, tmp_path / "lmms")
    digests = []
    for number, model in enumerate((checkpoint, renamed)):
        out = tmp_path / str(number)
        encode([str(carphone)], str(out), demo_config(**settings(model)))
        digests.append(result_digests(out))
    assert digests[0] == digests[1]
    # A moved checkpoint is still the same model, so the run may be resumed with it.
    assert encode([str(carphone)], str(tmp_path / "0"), demo_config(**settings(renamed))).already == 1
