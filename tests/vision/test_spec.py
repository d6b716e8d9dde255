"""A model's description survives JSON."""

from __future__ import annotations

import json

import pytest

from dyntok.errors import CheckpointError
from dyntok.vision import ModelSpec, describe_model


@pytest.mark.parametrize("space", ["llm", "vision"])
def test_round_trip(space: str) -> None:
    spec = describe_model("demo", space=space)
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "change",
    [{"grid": {"rows": 0, "cols": 3}}, {"grid": [14, 14]}, {"mean": None}, {"std": ["a"]}, {"surprise": 1}],
)
def test_malformed(change: dict[str, object]) -> None:
    data = describe_model("demo").to_json()
    with pytest.raises(CheckpointError):
        ModelSpec.from_json({**data, **change})
    data.pop("height")
    with pytest.raises(CheckpointError, match="height"):
        ModelSpec.from_json(data)
