"""Precompressed visual tokens for video LLMs.

Names are loaded when they are asked for: reading a store imports no decoder, no model and no executor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig
    from dyntok.errors import DyntokError
    from dyntok.load import Store, StoredVideo, decode_sample
    from dyntok.load import open_store as open
    from dyntok.merging import VideoTokens, merge
    from dyntok.run import EncodeReport, RunObserver, encode

_WHERE = {
    "DyntokError": ("dyntok.errors", "DyntokError"),
    "EncodeConfig": ("dyntok.config", "EncodeConfig"),
    "EncodeReport": ("dyntok.run", "EncodeReport"),
    "RunObserver": ("dyntok.run", "RunObserver"),
    "Store": ("dyntok.load", "Store"),
    "StoredVideo": ("dyntok.load", "StoredVideo"),
    "VideoTokens": ("dyntok.merging", "VideoTokens"),
    "decode_sample": ("dyntok.load", "decode_sample"),
    "encode": ("dyntok.run", "encode"),
    "merge": ("dyntok.merging", "merge"),
    "open": ("dyntok.load", "open_store"),
}

__all__ = [
    "DyntokError",
    "EncodeConfig",
    "EncodeReport",
    "RunObserver",
    "Store",
    "StoredVideo",
    "VideoTokens",
    "decode_sample",
    "encode",
    "merge",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
