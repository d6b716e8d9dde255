"""What a store needs to know of the model that made it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from dyntok.errors import CheckpointError
from dyntok.records import Grid


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The model behind a store, in plain values; `to_json` and `from_json` are inverse.

    `name` is what the user gave (hub id, folder name or `demo`). `kind` is one of `llava-hf`, `llava-lmms`,
    `siglip`, `siglip2`, `demo`; `space` is `llm` or `vision`. `fingerprint` (sha256, hex) covers the bytes of the
    tensors in use, the architecture, the preprocessing and the pooling, and neither name, path nor key layout.

    A frame is `height x width` uint8 RGB; the tower sees `(pixel * rescale - mean) / std` on a patch grid of
    `encoder_rows x encoder_cols`, pooled to `grid`. Features have `feature_dim` values. Stored tokens have
    `token_dim`: the LLM's width in space `llm`, `feature_dim` in space `vision`. `resample` is the filter that
    frames are resized with: `bicubic` or `bilinear`, antialiased.
    """

    name: str
    kind: str
    space: str
    fingerprint: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    resample: str
    encoder_rows: int
    encoder_cols: int
    grid: Grid
    feature_dim: int
    token_dim: int
    has_row_marker: bool

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        """The inverse of `to_json`. Raises CheckpointError if a field is missing, unknown or of no use."""
        known = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != known:
            odd = sorted(known ^ set(data)) if isinstance(data, dict) else [type(data).__name__]
            raise CheckpointError(f"a model description does not have the expected fields: {', '.join(odd)}")
        try:
            grid = Grid(**data["grid"])
            mean, std = tuple(map(float, data["mean"])), tuple(map(float, data["std"]))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"a model description is malformed: {error}") from error
        return cls(**{**data, "grid": grid, "mean": mean, "std": std})
