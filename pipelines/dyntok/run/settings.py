"""From a validated config and a model to the settings of each part."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import dyntok
from dyntok.config import EncodeConfig
from dyntok.run.executors import chosen, ray_address
from dyntok.store import DatasetInfo
from dyntok.video import DecodeLimits, DecodeSettings, Sampling
from dyntok.vision import ModelSpec

RECORDED_PACKAGES = ("torch", "transformers", "av", "decord2", "numpy", "webdataset", "zarr")
MOST_DECODE_WORKERS = 16


def resolve_precision(config: EncodeConfig) -> EncodeConfig:
    """Replace `auto` by the arithmetic it means on the chosen device, since it decides the bytes.

    Raises RunError if that takes a look at a Ray cluster which cannot be reached.
    """
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": "bfloat16" if _on_accelerator(config) else "float32"})


def _on_accelerator(config: EncodeConfig) -> bool:
    if config.device != "auto":
        return config.device.startswith(("cuda", "mps"))
    if chosen(config) == "ray":
        if config.gpus_per_actor is not None:
            return config.gpus_per_actor > 0
        if (address := ray_address(config)) is not None:
            from dyntok.run.executors.session import cluster_has_gpus

            return cluster_has_gpus(address)
        return torch.cuda.is_available()
    return torch.cuda.is_available() or torch.backends.mps.is_available()


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
    versions = {"dyntok": dyntok.__version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def decode_settings(config: EncodeConfig, spec: ModelSpec) -> DecodeSettings:
    """What the decode processes need."""
    return DecodeSettings(
        sampling=sampling(config),
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
    )


def sampling(config: EncodeConfig) -> Sampling:
    return Sampling(frames=config.frames, fps=config.fps, max_frames=config.max_frames)


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
