"""Settings of a run, validated once at the edge. Flat, so that a YAML file reads like the flags."""

from __future__ import annotations

import hashlib
import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dyntok.errors import ConfigError

DEFAULT_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)

# Settings that say how a run is carried out, not what comes out of it. They may differ between a run and its
# resumption. The model counts by its fingerprint, so that a checkpoint may be moved or renamed.
OPERATIONAL = frozenset(
    {
        "model",
        "revision",
        "executor",
        "ray_address",
        "actors",
        "gpus_per_actor",
        "cpus_per_actor",
        "max_attempts",
        "grace_period_s",
        "device",
        "decode_workers",
        "decode_timeout_s",
        "decode_memory",
        "input_cache",
        "fail_fast",
    }
)

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?b?)\s*", re.IGNORECASE)
_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def parse_size(text: str | int) -> int:
    """Bytes of `1GB`, `512MiB`, `1000`. Decimal units unless an `i` says otherwise."""
    match = _SIZE.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 1GB or 512MiB")
    size = int(float(match[1]) * _UNITS[match[2].lower().removesuffix("b")])
    if size <= 0:
        raise ValueError(f"a size must be positive, got {text!r}")
    return size


class EncodeConfig(BaseModel):
    """What `dyntok encode` does. Field names are the flags' names.

    `EncodeConfig.create` raises `ConfigError`; constructing it directly raises pydantic's `ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(min_length=1, description="HF hub id, local checkpoint folder, or `demo`")
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    space: Literal["llm", "vision"] = Field(
        "llm", description="store projected tokens (llm) or tower features (vision)"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="arithmetic of the model; auto is float32 on CPUs, bfloat16 elsewhere"
    )
    compile: bool = Field(False, description="compile the model with torch.compile")

    frames: int | None = Field(32, ge=1, le=1_000_000, description="frames a video, spread uniformly")
    fps: float | None = Field(
        None, gt=0, le=1000, description="frames a second of video, instead of --frames"
    )
    max_frames: int | None = Field(
        None, ge=1, le=1_000_000, description="with --fps: above it, this many uniformly"
    )

    thresholds: tuple[float, ...] = Field(
        DEFAULT_THRESHOLDS,
        min_length=1,
        max_length=64,
        description="similarities above which neighbours merge; tokens are stored at the largest",
    )
    format: Literal["webdataset", "zarr"] = Field("webdataset", description="format of the shards")
    layout: Literal["nested", "explicit"] = Field(
        "nested", description="nested stores the finest threshold only; explicit stores every one"
    )
    dtype: Literal["bfloat16", "float16", "float32", "int8"] = Field(
        "bfloat16", description="dtype of stored tokens"
    )
    shard_size: int = Field(10**9, description="aimed size of a shard")
    batch_size: int = Field(16, ge=1, le=4096, description="frames per forward pass; one fixed shape")

    decoder: Literal["auto", "decord", "pyav"] = Field(
        "auto", description="decoding library; auto is always exact"
    )
    max_pixels: int = Field(8192 * 4320, ge=1, description="largest width x height that is decoded")
    max_seconds: float = Field(24 * 3600.0, gt=0, description="longest video that is decoded")
    full_fingerprint: bool = Field(False, description="fingerprint inputs by their whole content")

    executor: Literal["auto", "local", "ray"] = Field(
        "auto",
        description="where shards are encoded: in this process, or by Ray actors; auto takes Ray for more than one "
        "GPU or where an address is given",
    )
    ray_address: str | None = Field(
        None, min_length=1, description="Ray cluster to join, as host:port or `auto`; else Ray starts here"
    )
    actors: int = Field(
        0, ge=0, le=100_000, description="Ray actors; 0 is one for each GPU, or one for each machine without"
    )
    gpus_per_actor: float | None = Field(
        None, ge=0, le=1, description="share of a GPU that an actor takes; 0 makes actors without GPU"
    )
    cpus_per_actor: float | None = Field(
        None, gt=0, le=1024, description="CPUs that an actor takes; by default its decode processes"
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="times that a video alone may kill its process before it is given up"
    )
    grace_period_s: float = Field(
        20.0, ge=0, le=86400, description="after SIGTERM, time for the shards in work to be committed"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto takes a GPU where there is one"
    )
    decode_workers: int = Field(
        0, ge=0, le=512, description="decode processes; 0 is one per core, at most 16"
    )
    decode_timeout_s: float = Field(300.0, gt=0, description="longest decode of one video")
    decode_memory: int = Field(4 * 2**30, description="memory of one decode process")
    input_cache: int = Field(
        2 * 2**30, description="temporary disk space for remote videos until they are decoded"
    )
    fail_fast: bool = Field(False, description="stop at the first failed video")

    @model_validator(mode="before")
    @classmethod
    def _fps_replaces_default_frames(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("fps") is not None and "frames" not in data:
            return {**data, "frames": None}
        return data

    @field_validator("shard_size", "decode_memory", "input_cache", mode="before")
    @classmethod
    def _size(cls, value: Any) -> int:
        return parse_size(value)

    @field_validator("thresholds", mode="after")
    @classmethod
    def _thresholds(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for threshold in value:
            if not -1.0 <= threshold <= 1.0:
                raise ValueError(f"a threshold lies between -1 and 1, got {threshold:g}")
            if round(threshold, 4) != threshold:
                raise ValueError(f"a threshold has at most four decimals, got {threshold!r}")
        return tuple(sorted({t + 0.0 for t in value}))

    @model_validator(mode="after")
    def _sampling(self) -> EncodeConfig:
        if (self.frames is None) == (self.fps is None):
            raise ValueError("give either frames or fps")
        if self.max_frames is not None and self.fps is None:
            raise ValueError("max_frames goes with fps")
        return self

    @model_validator(mode="after")
    def _actors(self) -> EncodeConfig:
        if self.gpus_per_actor == 0 and self.device.startswith("cuda"):
            raise ValueError(f"gpus_per_actor 0 contradicts device {self.device}")
        if self.gpus_per_actor and self.device == "cpu":
            raise ValueError("gpus_per_actor does not go with device cpu")
        if (self.executor == "ray" or self.ray_address) and self.device.startswith("cuda:"):
            raise ValueError(f"device {self.device} is one GPU of one machine; with Ray, give cuda")
        return self

    @property
    def stored_threshold(self) -> float:
        """The largest threshold: the one whose tokens are stored."""
        return self.thresholds[-1]

    def sampling_json(self) -> dict[str, Any]:
        """How frames were chosen, as a sample's JSON records it."""
        if self.fps is not None:
            return {"mode": "fps", "fps": self.fps, "max_frames": self.max_frames}
        return {"mode": "uniform", "frames": self.frames}

    def content_json(self) -> dict[str, Any]:
        """The settings that decide the bytes of a store (the model's part is its fingerprint)."""
        return self.model_dump(mode="json", exclude=set(OPERATIONAL))

    def content_hash(self, model_fingerprint: str) -> str:
        """sha256 (hex) of everything that decides the bytes of a store."""
        content = {**self.content_json(), "model_fingerprint": model_fingerprint}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def create(cls, **settings: Any) -> EncodeConfig:
        """Validate, with errors a user can read. Raises ConfigError."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(_explain(error), hint=_mend(error)) from None


def load_config_file(path: Path) -> dict[str, Any]:
    """Settings of a YAML file, not validated yet. Raises ConfigError that names the file."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}",
            hint="check the path; `dyntok config init FILE.yaml` writes a template",
        ) from error
    try:
        data = yaml.safe_load(text) if len(text) < 2**20 else None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"look at line {where.line + 1}; " if where is not None else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(
            f"{path} is not valid YAML: {problem}", hint=f"{line}`dyntok config` prints a template"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(
            f"{path} must hold one mapping of settings", hint="`dyntok config` prints a template"
        )
    return {key.replace("-", "_"): value for key, value in data.items()}


def _mend(error: ValidationError) -> str:
    """What to do about it: the setting that was meant, where one was misspelt."""
    unknown = [str(item["loc"][-1]) for item in error.errors() if item["type"] == "extra_forbidden"]
    similar = [name for word in unknown for name in get_close_matches(word, EncodeConfig.model_fields, 1)]
    meant = f"did you mean {' and '.join(f'`{name}`' for name in similar)}? " if similar else ""
    sampling = any("frames" in item["msg"] and "fps" in item["msg"] for item in error.errors())
    ways = "--frames N, or --fps F with --max-frames M as a bound; " if sampling else ""
    return f"{meant}{ways}`dyntok config` shows every setting"


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"]).replace("_", "-")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such setting"
        lines.append(f"{where}: {message}" if where else message)
    return "; ".join(lines)
