"""What a user reads when a checkpoint, a device or a frame cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dyntok.errors import CheckpointError, ConfigError, UsageError
from dyntok.testing import rename_to_lmms_lab
from dyntok.vision import describe_model, load_encoder
from tests.vision.test_layouts import copy_checkpoint


@pytest.fixture
def copy(tiny_llava: Path, tmp_path: Path) -> Path:
    return copy_checkpoint(tiny_llava, tmp_path / "copy")


def set_config(folder: Path, file: str = "config.json", **changes: Any) -> None:
    path = folder / file
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def refusal(model: Path | str, space: str = "llm") -> str:
    """Message and hint of the CheckpointError."""
    with pytest.raises(CheckpointError) as caught:
        describe_model(str(model), space=space)
    return f"{caught.value.message} | {caught.value.hint}"


def test_missing_folder_and_unknown_hub_id() -> None:
    assert "no checkpoint folder at ./nothing" in refusal("./nothing")
    assert "no checkpoint folder at /nothing/there" in refusal("/nothing/there")
    assert "no checkpoint folder" in refusal("a/b/c")
    assert "hub cannot be reached" in refusal("nobody/nothing")
    assert "spelling" in refusal("not a valid id!")


def test_a_revision_of_a_folder(tiny_llava: Path) -> None:
    with pytest.raises(CheckpointError, match="no revision"):
        describe_model(str(tiny_llava), revision="main")


def test_missing_config(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", "\udcff", "[" * 100_000])
def test_config_that_is_no_object(content: str, copy: Path) -> None:
    (copy / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refusal(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, copy / "pytorch_model.bin")
    message = refusal(copy)
    assert "no safetensors" in message and "save_pretrained" in message and "pickled" in message


def test_unknown_architecture(copy: Path) -> None:
    set_config(copy, model_type="qwen2_vl")
    assert "'qwen2_vl'" in refusal(copy)


def test_another_tower(copy: Path) -> None:
    vision = json.loads((copy / "config.json").read_text())["vision_config"]
    set_config(copy, vision_config={**vision, "model_type": "clip_vision_model"})
    assert "clip_vision_model" in refusal(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_select_strategy": "default"}, "select_strategy"),
        ({"vision_feature_layer": [-1, -2]}, "several layers"),
        ({"vision_feature_layer": 4}, "not a layer of a tower with 3"),
        ({"vision_feature_layer": -5}, "not a layer"),
        ({"vision_feature_layer": "last"}, "not a layer"),
        ({"text_config": {"hidden_size": 64}}, "config.json implies"),
        ({"text_config": {}}, "hidden_size"),
        ({"vision_config": []}, "lacks"),
        ({"vision_config": "siglip"}, "not an object"),
    ],
)
def test_configs_that_cannot_be_served(changes: dict[str, Any], message: str, copy: Path) -> None:
    set_config(copy, **changes)
    assert message in refusal(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48}, "config.json implies"),
        ({"hidden_size": "wide"}, "whole number"),
        ({"hidden_size": 10**12}, "out of range"),
        ({"num_hidden_layers": 4}, "lacks 16 tensors"),
        ({"num_hidden_layers": 10**9}, "out of range"),
        ({"num_attention_heads": 5}, "do not divide"),
        ({"num_channels": 4}, "RGB"),
        ({"image_size": [384, 448]}, "not square"),
        ({"image_size": 448}, "config.json implies"),
        ({"patch_size": 0}, "out of range"),
    ],
)
def test_tower_configs_that_do_not_fit(changes: dict[str, Any], message: str, copy: Path) -> None:
    vision = json.loads((copy / "config.json").read_text())["vision_config"]
    set_config(copy, vision_config={**vision, **changes})
    assert message in refusal(copy)


def test_a_list_of_one_feature_layer_is_that_layer(copy: Path, tiny_llava: Path) -> None:
    set_config(copy, vision_feature_layer=[-1])
    assert describe_model(str(copy)).fingerprint == describe_model(str(tiny_llava)).fingerprint


def test_unknown_activation(copy: Path) -> None:
    set_config(copy, projector_hidden_act="wobble")
    with pytest.raises(CheckpointError, match="wobble"):
        load_encoder(str(copy))


def test_plain_siglip_needs_space_vision(tiny_siglip: Path) -> None:
    assert "--space vision" in refusal(tiny_siglip)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_spatial_pool_mode": "average"}, "'average'"),
        ({"mm_projector_type": "linear"}, "'linear'"),
        ({"vision_config": None}, "num_attention_heads"),
        ({"hidden_size": 48}, "config.json implies"),
    ],
)
def test_lmms_lab_configs_that_cannot_be_served(
    changes: dict[str, Any], message: str, tiny_lmms: Path, tmp_path: Path
) -> None:
    folder = copy_checkpoint(tiny_lmms, tmp_path / "copy", **changes)
    assert message in refusal(folder)


def test_lmms_lab_checkpoint_with_a_frozen_tower(tiny_llava: Path, tmp_path: Path) -> None:
    folder = rename_to_lmms_lab(tiny_llava, tmp_path / "lmms")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: t for k, t in tensors.items() if "vision_tower" not in k}, folder / "model.safetensors")
    assert "frozen" in refusal(folder)


@pytest.mark.parametrize("length", [0, 4, 1000, 30_000])
def test_truncated_weights(length: int, copy: Path) -> None:
    os.truncate(copy / "model.safetensors", length)
    assert "incomplete or damaged" in refusal(copy)


def test_a_pointer_of_git_lfs(copy: Path) -> None:
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert "git lfs pull" in refusal(copy)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", 7])
def test_an_index_cannot_name_a_file_elsewhere(shard: Any, copy: Path) -> None:
    index = {"weight_map": {"image_newline": shard}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no plain file name" in refusal(copy)


def test_an_index_that_does_not_fit(copy: Path) -> None:
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"image_newline": "other.safetensors"}}))
    assert "is missing" in refusal(copy)
    index.write_text(json.dumps({"weight_map": {"model.image_newline": "model.safetensors"}}))
    assert "promises" in refusal(copy)
    index.write_text("{}")
    assert "weight_map" in refusal(copy)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="space"):
        describe_model("demo", space="audio")
    with pytest.raises(ConfigError, match="precision"):
        load_encoder("demo", precision="int8")
    with pytest.raises(ConfigError, match="no device"):
        load_encoder("demo", device="abacus")
    with pytest.raises(ConfigError, match="CUDA devices"):
        load_encoder("demo", device=f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(CheckpointError, match="no revisions"):
        load_encoder("demo", revision="main")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 384, 384, 3),
        torch.zeros(1, 3, 384, 384, dtype=torch.uint8),
        torch.zeros(384, 384, 3, dtype=torch.uint8),
        torch.zeros(0, 384, 384, 3, dtype=torch.uint8),
    ],
)
def test_frames_of_the_wrong_kind(images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="uint8"):
        load_encoder("demo").encode(images)
