"""The model of a run, what of it goes into the store, and what its device may have to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from dyntok.config import EncodeConfig
from dyntok.errors import RunError
from dyntok.store import StoreRoot, save_tensors
from dyntok.store.names import MARKER_FILE
from dyntok.vision import VisualEncoder, load_encoder

# PyTorch has classes for some of them, all of which are RuntimeErrors; the others have only their words.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED")
_OF_DEVICE = re.compile(
    r"\b(?:cuda|hip|xpu|mps|miopen|cu(?:dnn|blas|fft|solver|sparse))\b.*\berror\b|device-side assert",
    re.IGNORECASE,
)


@contextmanager
def explain_device_errors() -> Iterator[None]:
    """Turn an error of the device, which no video is to blame for, into a RunError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        text = (str(error).strip().splitlines() or [""])[0]
        kind = type(error).__name__
        if kind == "OutOfMemoryError" or _OUT_OF_MEMORY.search(text):
            raise RunError(
                f"the device has not enough memory: {text}",
                hint="lower --batch-size, or end what else uses the device; then run the same command again",
            ) from error
        if kind == "AcceleratorError" or _OF_DEVICE.search(text):
            raise RunError(
                f"the device failed: {text}",
                hint="run the same command again, since finished shards are kept; if it comes back, try a lower "
                "--batch-size, another device, or --device cpu",
            ) from error
        raise


@explain_device_errors()
def load_model(config: EncodeConfig) -> VisualEncoder:
    """The model of a run. Raises CheckpointError, ConfigError; RunError if the device fails or is full."""
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
