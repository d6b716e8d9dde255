"""Precompressed visual tokens for video LLMs.

Names are loaded when they are asked for: reading a store imports no decoder, no model and no executor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dyntok.version import __version__ as __version__

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig
    from dyntok.errors import DyntokError
    from dyntok.load import (
        BatchStream,
        ChatTokenizer,
        Conversation,
        Store,
        StoredVideo,
        StreamSample,
        TokenSequence,
        TokenStream,
        decode_sample,
        expand,
        pack_batch,
        pad_batch,
        splice,
    )
    from dyntok.load import open_store as open
    from dyntok.merging import VideoTokens, merge
    from dyntok.run import EncodeReport, RunObserver, encode
    from dyntok.vision.projector import VisionProjector

_WHERE = {
    "BatchStream": ("dyntok.load", "BatchStream"),
    "ChatTokenizer": ("dyntok.load", "ChatTokenizer"),
    "Conversation": ("dyntok.load", "Conversation"),
    "DyntokError": ("dyntok.errors", "DyntokError"),
    "EncodeConfig": ("dyntok.config", "EncodeConfig"),
    "EncodeReport": ("dyntok.run", "EncodeReport"),
    "RunObserver": ("dyntok.run", "RunObserver"),
    "Store": ("dyntok.load", "Store"),
    "StoredVideo": ("dyntok.load", "StoredVideo"),
    "StreamSample": ("dyntok.load", "StreamSample"),
    "TokenSequence": ("dyntok.load", "TokenSequence"),
    "TokenStream": ("dyntok.load", "TokenStream"),
    "VideoTokens": ("dyntok.merging", "VideoTokens"),
    "VisionProjector": ("dyntok.vision.projector", "VisionProjector"),
    "decode_sample": ("dyntok.load", "decode_sample"),
    "encode": ("dyntok.run", "encode"),
    "expand": ("dyntok.load", "expand"),
    "merge": ("dyntok.merging", "merge"),
    "open": ("dyntok.load", "open_store"),
    "pack_batch": ("dyntok.load", "pack_batch"),
    "pad_batch": ("dyntok.load", "pad_batch"),
    "splice": ("dyntok.load", "splice"),
}

__all__ = [
    "BatchStream",
    "ChatTokenizer",
    "Conversation",
    "DyntokError",
    "EncodeConfig",
    "EncodeReport",
    "RunObserver",
    "Store",
    "StoredVideo",
    "StreamSample",
    "TokenSequence",
    "TokenStream",
    "VideoTokens",
    "VisionProjector",
    "decode_sample",
    "encode",
    "expand",
    "merge",
    "open",
    "pack_batch",
    "pad_batch",
    "splice",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
