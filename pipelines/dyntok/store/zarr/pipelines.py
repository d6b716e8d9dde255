"""Which codec pipeline an array uses: zarr's own to write, and to read what zarr's settings say."""

from __future__ import annotations

import threading
from typing import Any

import zarr
from zarr.storage import LocalStore

_PLAIN = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_ZARRS = "zarrs.ZarrsCodecPipeline"
_IN_ONE_THREAD = {
    "codec_pipeline.path": _ZARRS,
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
    """The same array; if the process is set to zarrs, in one thread, or in zarr's own pipeline where it is not local.

    More threads would be those of a pool that does not survive a fork: the workers of a loader would wait for ever.
    zarrs is not taken by itself, since it does not check a chunk's CRC-32C where it reads a part of it.
    """
    if zarr.config.get("codec_pipeline.path") != _ZARRS:
        return array
    is_local = isinstance(array.store, LocalStore)
    return _with(array, _IN_ONE_THREAD if is_local else {"codec_pipeline.path": _PLAIN})


def _with(array: zarr.Array[Any], settings: dict[str, Any]) -> zarr.Array[Any]:
    """An array takes its pipeline from zarr's settings when it is made. Nothing is read or written here."""
    inner = array.async_array
    with _SETTINGS, zarr.config.set(settings):
        return zarr.Array(zarr.AsyncArray(inner.metadata, inner.store_path, inner.config))
