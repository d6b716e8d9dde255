"""Where shards are encoded. An executor knows nothing of video: it calls the shard function.

`local` runs it in this process; `ray` in actors, on this machine or a cluster. Only `ray` imports Ray. Both are given a
`context`, and follow up on `deaths`. `run.encoding` imports the one that a run takes, and no other.
"""

from __future__ import annotations

import os

from dyntok.config import EncodeConfig


def chosen(config: EncodeConfig) -> str:
    """`local` or `ray`: what `executor` means for this configuration on this machine."""
    if config.executor != "auto":
        return config.executor
    if ray_address(config) is not None:
        return "ray"
    return "ray" if config.device in ("auto", "cuda") and _local_gpus() > 1 else "local"


def ray_address(config: EncodeConfig) -> str | None:
    """Address of the cluster to join: the setting, or what `ray job submit` puts into the environment."""
    return config.ray_address or os.environ.get("RAY_ADDRESS") or None


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()
