"""Which codec pipeline an array uses: zarr's own to write, `zarrs` to read where it is installed."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Any

import zarr
from zarr.storage import LocalStore

_PLAIN = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_IN_ONE_THREAD = {
    "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
    "codec_pipeline.chunk_concurrent_minimum": 1,
    "codec_pipeline.chunk_concurrent_maximum": 1,
    "threading.max_workers": 1,
}
# Settings of zarr belong to the process, and two threads that set them in turn would leave the wrong ones behind.
_SETTINGS = threading.Lock()


def for_writing(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array in zarr's own pipeline, whatever the process is set to: zarrs writes other bytes."""
    return _with(array, {"codec_pipeline.path": _PLAIN})


def for_reading(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array as zarrs reads it, in one thread; as it is where zarrs is missing or the array is not local.

    More threads would be those of a pool that does not survive a fork: the workers of a loader would wait for ever.
    """
    if not isinstance(array.store, LocalStore) or find_spec("zarrs") is None:
        return array
    return _with(array, _IN_ONE_THREAD)


def _with(array: zarr.Array[Any], settings: dict[str, Any]) -> zarr.Array[Any]:
    """An array takes its pipeline from zarr's settings when it is made. Nothing is read or written here."""
    inner = array.async_array
    with _SETTINGS, zarr.config.set(settings):
        return zarr.Array(zarr.AsyncArray(inner.metadata, inner.store_path, inner.config))
