"""Names inside a store: paths, thresholds, keys. Pure functions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

from dyntok.errors import StoreError

FORMAT_VERSION = 1

DATASET_FILE = "dataset.json"
PLAN_FILE = "plan.parquet"
INDEX_FILE = "index.parquet"
MANIFEST_FILE = "manifest.json"
MARKER_FILE = "row_marker.safetensors"
SHARD_FOLDER = "shards"
LOCK_FILE = ".lock"
SCRATCH_FOLDER = ".tmp"
LOG_FOLDER = "logs"
SET_ASIDE_FOLDER = ".set-aside"

_SHARD_PATH = re.compile(r"shards/shard-([0-9]{6,9})\.(json|stats|tar|zarr(/.*)?)")
_SLUG_LENGTH = 48


def is_ignored(path: str) -> bool:
    """Whether `path` (store-relative) is no part of the result: logs, temps, the lock, what a repair set aside."""
    return path == LOCK_FILE or path.split("/", 1)[0] in (SCRATCH_FOLDER, LOG_FOLDER, SET_ASIDE_FOLDER)


def check_path(path: str) -> str:
    """`path` itself, if it is relative to the store and stays inside. Raises StoreError."""
    parts = path.split("/")
    if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{path!r} is not a path inside a store")
    if PurePosixPath(path).is_absolute() or re.match(r"[A-Za-z]:", path):
        raise StoreError(f"{path!r} is not a path inside a store")
    return path


def shard_name(shard: int) -> str:
    """`shard-000000`."""
    return f"shard-{shard:06d}"


def shard_data_path(shard: int, shard_format: str) -> str:
    """Store-relative path of a shard's tar file or Zarr group."""
    suffix = {"webdataset": ".tar", "zarr": ".zarr"}[shard_format]
    return f"{SHARD_FOLDER}/{shard_name(shard)}{suffix}"


def record_path(shard: int) -> str:
    """Store-relative path of a shard's completion record."""
    return f"{SHARD_FOLDER}/{shard_name(shard)}.json"


def statistics_path(shard: int) -> str:
    """Store-relative path of a shard's statistics."""
    return f"{SHARD_FOLDER}/{shard_name(shard)}.stats"


def shard_of_statistics(path: str) -> int | None:
    """Shard number if `path` names a shard's statistics, else None."""
    shard = shard_of_path(path)
    return shard if shard is not None and path == statistics_path(shard) else None


def shard_of_record(path: str) -> int | None:
    """Shard number if `path` names a completion record, else None."""
    shard = shard_of_path(path)
    return shard if shard is not None and path == record_path(shard) else None


def shard_of_path(path: str) -> int | None:
    """Shard number if `path` names a record, statistics, a tar, or something in a Zarr group of a shard, else None."""
    match = _SHARD_PATH.fullmatch(path)
    if match is None or not path.startswith(f"{SHARD_FOLDER}/{shard_name(int(match[1]))}."):
        return None
    return int(match[1])


def threshold_name(threshold: float) -> str:
    """Key of a threshold in records and columns: two to four decimals, `0.40`, `0.405`, `-0.10`, `1.00`.

    Raises ValueError for what no config accepts: outside [-1, 1] or more than four decimals.
    """
    if not -1.0 <= threshold <= 1.0 or round(threshold, 4) != threshold:
        raise ValueError(f"a threshold lies in [-1, 1] and has at most four decimals, got {threshold!r}")
    whole, decimals = f"{threshold + 0.0:.4f}".split(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def level_suffix(threshold: float) -> str:
    """Name of an explicit level: `t040` for 0.40, `t0405` for 0.405, `tm010` for -0.10, `t100` for 1.00.

    The first digit is the whole part and the others are decimals, so the name has one reading.
    """
    return "t" + threshold_name(threshold).replace("-", "m").replace(".", "")


def sample_key(video_id: str) -> str:
    """Key of a video in a shard: a readable slug of the id and 16 hex digits of its sha256.

    Only `[A-Za-z0-9_-]`, at most 65 characters; no dot, since WebDataset splits a member's name at the first.
    """
    ascii_id = unicodedata.normalize("NFKD", video_id).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_id)[-_SLUG_LENGTH:].strip("-")
    digest = hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{slug}-{digest}" if slug else digest
