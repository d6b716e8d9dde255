"""Settings of a run, validated once at the edge. Flat, so that a YAML file reads like the flags."""

from __future__ import annotations

import hashlib
import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dyntok.errors import ConfigError
from dyntok.meanings import MEANINGS

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

# ByteSize alone would read `1,5GB` and `1 G 2` as 1 byte and 1 GB, `1kbit` as 125 bytes and True as one; and not `4Gi`.
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*((?:[kmgt]i?)?)b?", re.IGNORECASE)
_BYTES = TypeAdapter(ByteSize)


def parse_size(text: str | int) -> int:
    """Bytes of `1GB`, `512MiB`, `4Gi`, `1000`. Decimal units unless an `i` says otherwise. Raises ValueError."""
    written = _SIZE.fullmatch(str(text).strip())
    if written is None:
        raise ValueError(f"{text!r} is not a size such as 1GB or 512MiB")
    size = int(_BYTES.validate_python(f"{written[1]}{written[2]}b"))
    if size <= 0:
        raise ValueError(f"a size must be positive, got {text!r}")
    return size


def _explained(schema: dict[str, Any]) -> None:
    for name, field in schema["properties"].items():
        field["description"] = MEANINGS[name]


class EncodeConfig(BaseModel):
    """What `dyntok encode` does. Field names are the flags' names, and `dyntok.meanings` says what they mean.

    `EncodeConfig.create` raises `ConfigError`; constructing it directly raises pydantic's `ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), json_schema_extra=_explained)

    model: str = Field(min_length=1)
    revision: str | None = None
    space: Literal["llm", "vision"] = "llm"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False

    frames: int | None = Field(32, ge=1, le=1_000_000)
    fps: float | None = Field(None, gt=0, le=1000)
    max_frames: int | None = Field(None, ge=1, le=1_000_000)

    thresholds: tuple[float, ...] = Field(DEFAULT_THRESHOLDS, min_length=1, max_length=64)
    format: Literal["webdataset", "zarr"] = "webdataset"
    layout: Literal["nested", "explicit"] = "nested"
    dtype: Literal["bfloat16", "float16", "float32", "int8"] = "bfloat16"
    shard_size: int = 10**9
    batch_size: int = Field(16, ge=1, le=4096)

    decoder: Literal["auto", "decord", "pyav"] = "auto"
    max_pixels: int = Field(8192 * 4320, ge=1)
    max_seconds: float = Field(24 * 3600.0, gt=0)
    full_fingerprint: bool = False

    executor: Literal["auto", "local", "ray"] = "auto"
    ray_address: str | None = Field(None, min_length=1)
    actors: int = Field(0, ge=0, le=100_000)
    gpus_per_actor: float | None = Field(None, ge=0, le=1)
    cpus_per_actor: float | None = Field(None, gt=0, le=1024)
    max_attempts: int = Field(3, ge=1, le=100)
    grace_period_s: float = Field(20.0, ge=0, le=86400)
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    decode_workers: int = Field(0, ge=0, le=512)
    decode_timeout_s: float = Field(300.0, gt=0)
    decode_memory: int = 4 * 2**30
    input_cache: int = 2 * 2**30
    fail_fast: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fps_replaces_default_frames(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("fps") is not None and "frames" not in data:
            return {**data, "frames": None}
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes True for 1, and YAML takes yes, on and true for True."""
        values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        switch = cls.model_fields[str(info.field_name)].annotation is bool
        if not switch and any(isinstance(item, bool) for item in values):
            raise ValueError(f"needs a value, and {value!r} (in YAML also yes, no, on and off) is none")
        return value

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
        raise ConfigError(f"{path} must hold one mapping of settings", hint="`dyntok config` prints a template")
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
