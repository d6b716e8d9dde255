"""`dataset.json`: what a store holds and how it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from dyntok.errors import DamageError, StoreError, StoreVersionError
from dyntok.records import Grid
from dyntok.store.names import DATASET_FILE, FORMAT_VERSION
from dyntok.store.root import StoreRoot
from dyntok.store.signed import DIGEST_KEY, content_digest, sign, unsign, unsign_compact

SHARD_FORMATS = ("webdataset", "zarr")
LAYOUTS = ("nested", "explicit")
DTYPES = ("bfloat16", "float16", "float32", "int8")
SPACES = ("llm", "vision")
_MAX_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Content of `dataset.json`.

    Attributes:
        config: the full configuration of the run that encoded the store.
        config_hash: digest of everything in it that decides the bytes.
        model: the model's specification as JSON, its fingerprint included.
        grid: patch grid of a frame.
        feature_dim: F, of the features that decided the merging.
        token_dim: D, of the stored tokens.
        dtype: `bfloat16 | float16 | float32 | int8`.
        space: `llm` or `vision`.
        shard_format: `webdataset` or `zarr`; what the shards are now (`config` says what they were encoded as).
        layout: `nested` or `explicit`.
        thresholds: rising; the last is the finest, whose tokens every layout stores.
        software: versions by name.
    """

    config: dict[str, Any]
    config_hash: str
    model: dict[str, Any]
    grid: Grid
    feature_dim: int
    token_dim: int
    dtype: str
    space: str
    shard_format: str
    layout: str
    thresholds: tuple[float, ...]
    software: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for value, known in (
            (self.dtype, DTYPES),
            (self.space, SPACES),
            (self.shard_format, SHARD_FORMATS),
            (self.layout, LAYOUTS),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must rise: {self.thresholds}")
        if self.token_dim < 1 or self.feature_dim < 1:
            raise ValueError(f"dimensions must be positive: {self.token_dim}, {self.feature_dim}")

    @property
    def stored_threshold(self) -> float:
        """The finest (largest) threshold; any lower one follows from its tokens."""
        return self.thresholds[-1]

    @property
    def level_thresholds(self) -> tuple[float, ...]:
        """Thresholds whose tokens are stored, falling: one in the nested layout, all in the explicit one."""
        return self.thresholds[::-1] if self.layout == "explicit" else (self.stored_threshold,)

    def to_json(self) -> dict[str, Any]:
        """As `dataset.json` has it, without its digest."""
        return asdict(self) | {
            "thresholds": list(self.thresholds),
            "stored_threshold": self.stored_threshold,
        }

    def to_bytes(self) -> bytes:
        """The content of `dataset.json`."""
        return sign(self.to_json(), indent=2)

    def save(self, root: StoreRoot) -> None:
        """Write `dataset.json`."""
        root.write_atomic(DATASET_FILE, self.to_bytes())

    @classmethod
    def load(cls, root: StoreRoot) -> DatasetInfo:
        """Read `dataset.json`.

        Raises:
            StoreError: the folder is no store.
            StoreVersionError: a newer dyntok wrote it; the message names the format.
            DamageError: its bytes are not those that were written.
        """
        if not root.exists(DATASET_FILE):
            raise StoreError(
                f"{root.url} is not a dyntok store: it has no {DATASET_FILE}",
                hint="give the folder that `dyntok encode --out` wrote",
            )
        where = root.where(DATASET_FILE)
        content = unsign_versioned(root.read_bytes(DATASET_FILE, _MAX_BYTES), where, indent=2)
        try:
            return cls._from_json(content)
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{where} lacks or contradicts a field: {error}") from error

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> DatasetInfo:
        info = cls(
            config=dict(content["config"]),
            config_hash=str(content["config_hash"]),
            model=dict(content["model"]),
            grid=Grid(int(content["grid"]["rows"]), int(content["grid"]["cols"])),
            feature_dim=int(content["feature_dim"]),
            token_dim=int(content["token_dim"]),
            dtype=str(content["dtype"]),
            space=str(content["space"]),
            shard_format=str(content["shard_format"]),
            layout=str(content["layout"]),
            thresholds=tuple(float(threshold) for threshold in content["thresholds"]),
            software={str(name): str(version) for name, version in content["software"].items()},
            format_version=int(content["format_version"]),
        )
        if info.stored_threshold != content["stored_threshold"]:
            raise ValueError("stored_threshold is not the largest of thresholds")
        return info


def unsign_versioned(data: bytes, where: str, *, indent: int | None = None) -> dict[str, Any]:
    """`unsign`, which first refuses a newer format: its digest may follow other rules.

    A flipped bit in the version of a file of this format is damage, not news: then the digest fits this version.

    Raises StoreVersionError or DamageError.
    """
    intact = unsign_compact(data) if indent is None else None
    if intact is not None and intact.get("format_version") == FORMAT_VERSION:
        return intact
    try:
        content = json.loads(data)
        version = content["format_version"]
    except (ValueError, RecursionError, KeyError, TypeError):
        version = None
    if type(version) is int and version > FORMAT_VERSION:
        digest = content.pop(DIGEST_KEY, None)
        if digest != content_digest({**content, "format_version": FORMAT_VERSION}):
            raise StoreVersionError(
                f"{where} is of format {version}; this dyntok reads formats up to {FORMAT_VERSION}",
                hint=f"upgrade to a dyntok that reads format {version}: pip install --upgrade dyntok",
            )
    content = unsign(data, where, indent=indent)
    if version != FORMAT_VERSION:
        raise DamageError(f"{where} has no valid format version")
    return content
