"""From a validated config and a model to the settings of each part."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dyntok.config import EncodeConfig
from dyntok.store import DatasetInfo
from dyntok.version import __version__
from dyntok.video import DecodeLimits, DecodeSettings, Sampling
from dyntok.vision import ModelSpec

RECORDED_PACKAGES = ("torch", "transformers", "av", "decord2", "numpy", "webdataset", "zarr")
MOST_DECODE_WORKERS = 16


def dataset_info(config: EncodeConfig, spec: ModelSpec) -> DatasetInfo:
    """The `dataset.json` of a run."""
    return DatasetInfo(
        config=config.model_dump(mode="json"),
        config_hash=config.content_hash(spec.fingerprint),
        model=spec.to_json(),
        grid=spec.grid,
        feature_dim=spec.feature_dim,
        token_dim=spec.token_dim,
        dtype=config.dtype,
        space=config.space,
        shard_format=config.format,
        layout=config.layout,
        thresholds=config.thresholds,
        software=software_versions(),
    )


def software_versions() -> dict[str, str]:
    """Versions of what decides the bytes."""
    versions = {"dyntok": __version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def decode_settings(config: EncodeConfig, spec: ModelSpec) -> DecodeSettings:
    """What the decode processes need."""
    return DecodeSettings(
        sampling=Sampling(frames=config.frames, fps=config.fps, max_frames=config.max_frames),
        limits=DecodeLimits(
            max_pixels=config.max_pixels,
            max_seconds=config.max_seconds,
            timeout_s=config.decode_timeout_s,
            memory_bytes=config.decode_memory,
        ),
        height=spec.height,
        width=spec.width,
        resample="bilinear" if spec.resample == "bilinear" else "bicubic",
        backend=config.decoder,
        input_cache_bytes=config.input_cache,
    )


def decode_workers(config: EncodeConfig) -> int:
    """Decode processes: as asked, else one per usable core, at most 16."""
    if config.decode_workers:
        return config.decode_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_DECODE_WORKERS)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`setting: was X, is Y` for each setting that differs."""
    names = sorted(old.keys() | new.keys())
    return [f"{n}: was {old.get(n)!r}, is {new.get(n)!r}" for n in names if old.get(n) != new.get(n)]
