"""The visual front end: a checkpoint's tower, projector and pooling, and the embedded `demo` model.

`describe_model` says what a checkpoint is without building it; `load_encoder` gives a `VisualEncoder` that turns
uint8 frames into pooled features and tokens; `VisionProjector` is the projector alone, for training. May import torch,
transformers, safetensors, huggingface_hub, and of dyntok only `errors` and `records`.
"""

from dyntok.vision.encoder import EncodedFrames, VisualEncoder, describe_model, load_encoder
from dyntok.vision.projector import VisionProjector
from dyntok.vision.spec import ModelSpec
from dyntok.vision.work import DoneWork, Work

__all__ = [
    "DoneWork",
    "EncodedFrames",
    "ModelSpec",
    "VisionProjector",
    "VisualEncoder",
    "Work",
    "describe_model",
    "load_encoder",
]
