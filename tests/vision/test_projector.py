"""The projector alone, against Hugging Face's module and against the store that it is meant for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dyntok
from dyntok.errors import CheckpointError
from dyntok.run import encode
from dyntok.vision import VisionProjector, describe_model, load_encoder
from dyntok.vision.files import CheckpointFiles
from tests.support.runs import demo_config


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn((5, 7, 24), generator=torch.Generator().manual_seed(1))


def test_it_is_hugging_faces_projector(tiny_llava: Path, features: Tensor) -> None:
    from transformers import LlavaOnevisionForConditionalGeneration

    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tiny_llava, dtype=torch.float32)
    theirs = model.model.multi_modal_projector
    ours = VisionProjector.from_checkpoint(str(tiny_llava))

    assert (ours.feature_dim, ours.token_dim) == (24, 32)
    torch.testing.assert_close(ours(features), theirs(features), atol=1e-6, rtol=0)
    # What was trained goes back under the same names.
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())


def test_both_layouts_give_the_same(tiny_llava: Path, tiny_lmms: Path, features: Tensor) -> None:
    one, other = (VisionProjector.from_checkpoint(str(folder)) for folder in (tiny_llava, tiny_lmms))
    assert torch.equal(one(features), other(features))


def test_only_the_projector_is_read(tiny_llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = CheckpointFiles.read, []
    monkeypatch.setattr(CheckpointFiles, "read", lambda self, names: asked.append(names) or read(self, names))
    VisionProjector.from_checkpoint(str(tiny_llava))
    parts = [f"projector.linear_{number}.{part}" for number in (1, 2) for part in ("bias", "weight")]
    assert asked == [parts]


def test_it_learns_in_its_own_dtype(tiny_llava: Path, features: Tensor) -> None:
    before = VisionProjector.from_checkpoint(str(tiny_llava)).state_dict()
    projector = VisionProjector.from_checkpoint(str(tiny_llava))
    optimizer = torch.optim.SGD(projector.parameters(), lr=0.1)
    tokens = projector(features.bfloat16())
    assert tokens.dtype == torch.float32
    tokens.square().mean().backward()
    optimizer.step()
    for name, parameter in projector.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    # The file is not what was trained.
    assert torch.equal(VisionProjector.from_checkpoint(str(tiny_llava)).linear_1.weight, before["linear_1.weight"])
    half = VisionProjector.from_checkpoint(str(tiny_llava), dtype=torch.bfloat16)
    assert half(features).dtype == torch.bfloat16


def test_the_demo_model_has_one(features: Tensor) -> None:
    projector = VisionProjector.from_checkpoint("demo")
    spec = describe_model("demo")
    assert (projector.feature_dim, projector.token_dim) == (spec.feature_dim, spec.token_dim)
    assert projector(torch.ones(3, spec.feature_dim)).shape == (3, spec.token_dim)


def test_a_plain_siglip_has_none(tiny_siglip: Path) -> None:
    with pytest.raises(CheckpointError, match="no projector") as caught:
        VisionProjector.from_checkpoint(str(tiny_siglip))
    assert "LLaVA" in (caught.value.hint or "")


def test_what_does_not_fit_is_named(tiny_llava: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_llava / "model.safetensors")
    config = json.loads((tiny_llava / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    lost = tensors.pop("multi_modal_projector.linear_2.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .* projector\.linear_2\.bias"):
        VisionProjector.from_checkpoint(str(tmp_path))
    save_file({**tensors, "multi_modal_projector.linear_2.bias": lost[:-1].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"projector\.linear_2\.bias has shape \[31\]"):
        VisionProjector.from_checkpoint(str(tmp_path))
    config["projector_hidden_act"] = "no such thing"
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({**tensors, "multi_modal_projector.linear_2.bias": lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no such thing"):
        VisionProjector.from_checkpoint(str(tmp_path))


def test_projecting_pooled_features_is_near_to_llavas_order_and_not_equal(
    tiny_llava: Path, bikes: Path, tmp_path: Path
) -> None:
    stores = []
    for space in ("vision", "llm"):
        config = demo_config(
            model=str(tiny_llava), space=space, thresholds=(1.0,), dtype="float32", precision="float32"
        )
        encode([str(bikes)], str(tmp_path / space), config)
        stores.append(dyntok.open(tmp_path / space)["bikes.mp4"].at())
    stored, exact = stores[0].tokens, stores[1].tokens
    assert stored.shape == (len(exact), 24)

    with torch.no_grad():
        projected = VisionProjector.from_checkpoint(str(tiny_llava))(stored)

    away = (projected - exact).norm(dim=1) / exact.norm(dim=1)
    assert 1e-4 < away.mean() < 0.2


def test_the_difference_is_the_activation(tiny_llava: Path, frames: Tensor, tmp_path: Path) -> None:
    config = json.loads((tiny_llava / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "projector_hidden_act": "linear"}))
    for file in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((tiny_llava / file).read_bytes())
    encoded = load_encoder(str(tmp_path), device="cpu").encode(frames[:1])
    with torch.no_grad():
        projected = VisionProjector.from_checkpoint(str(tmp_path))(encoded.features)
    torch.testing.assert_close(projected, encoded.tokens, atol=1e-5, rtol=0)
