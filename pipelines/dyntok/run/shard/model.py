"""The model of a run, and what of it goes into the store."""

from __future__ import annotations

from dyntok.config import EncodeConfig
from dyntok.store import StoreRoot, save_tensors
from dyntok.store.names import MARKER_FILE
from dyntok.vision import VisualEncoder, load_encoder


def load_model(config: EncodeConfig) -> VisualEncoder:
    """The model of a run. Raises CheckpointError, ConfigError."""
    return load_encoder(
        config.model,
        space=config.space,
        device=config.device,
        precision=config.precision,
        compile=config.compile,
        revision=config.revision,
    )


def save_row_marker(root: StoreRoot, encoder: VisualEncoder) -> None:
    """Write the model's `image_newline` unless it is there; every process of a run would write the same bytes."""
    if encoder.row_marker is not None:
        data = save_tensors({"row_marker": ("F32", encoder.row_marker.float().numpy())})
        if root.read_if_there(MARKER_FILE) != data:
            root.write_atomic(MARKER_FILE, data)
