"""From flags, a YAML file and a store that is there already to a validated `EncodeConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyntok_cli.options import expanded

if TYPE_CHECKING:
    from dyntok.config import EncodeConfig

DEMO_MODEL = "demo"
EXAMPLE_MODEL = "llava-hf/llava-onevision-qwen2-7b-ov-hf"


def encode_config(
    flags: dict[str, Any], config_file: str | None, *, inputs: Sequence[str], out: str | None
) -> EncodeConfig:
    """Settings by rising precedence: the store's own (only without inputs), the file's, the flags.

    Raises:
        UsageError: there is no model, or neither inputs nor a store.
        ConfigError: a setting is invalid or contradicts another.
    """
    from dyntok.config import EncodeConfig
    from dyntok.errors import UsageError

    settings, _ = _layered(flags, config_file, {} if inputs else _stored_settings(out))
    if settings.get("model") is None:
        raise UsageError(
            "no model was given",
            hint=f"add `--model {EXAMPLE_MODEL}` (any LLaVA-OneVision or LLaVA-Video checkpoint), or "
            f"`--model {DEMO_MODEL}` to try things without a download",
        )
    return EncodeConfig.create(**settings)


def sourced_settings(flags: dict[str, Any], config_file: str | None, store: str | None) -> dict[str, tuple[Any, str]]:
    """What a run with these would use: each setting's value, and `default`, `store`, the file's name or `flag`.

    A model is not needed: where none is given, it is None.

    Raises:
        ConfigError: a setting is invalid or contradicts another.
        UsageError: there is no store at `store`.
    """
    from dyntok.config import EncodeConfig

    given, sources = _layered(flags, config_file, {} if store is None else _stored_settings(store))
    chosen = EncodeConfig.create(**{**given, "model": given.get("model") or DEMO_MODEL})
    values = chosen.model_dump(mode="json")
    if given.get("model") is None:
        values["model"] = None
    if chosen.fps is not None:  # it takes the place of frames
        given["frames"], sources["frames"] = None, sources["fps"]
    return {name: (value, sources[name] if name in given else "default") for name, value in values.items()}


def _layered(
    flags: dict[str, Any], config_file: str | None, stored: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that are given anywhere, and for each where: `store`, the file's name or `flag`."""
    from dyntok.config import load_config_file

    layers = [("store", stored), ("flag", _parsed(flags))]
    if config_file is not None:
        layers.insert(1, (config_file, load_config_file(Path(config_file))))
    given: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, layer in layers:
        given = overridden(given, layer)
        sources |= dict.fromkeys(layer, name)
    if isinstance(given.get("model"), str):
        given["model"] = expanded(given["model"])
    return given, sources


def overridden(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the settings of `over`. One way of sampling replaces the other as a whole."""
    kept = dict(base)
    if over.get("fps") is not None:
        kept.pop("frames", None)
    if over.get("frames") is not None:
        kept.pop("fps", None)
        kept.pop("max_frames", None)
    return {**kept, **over}


def _parsed(flags: dict[str, Any]) -> dict[str, Any]:
    from dyntok.errors import ConfigError

    if "thresholds" not in flags:
        return flags
    text = str(flags["thresholds"])
    try:
        thresholds = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"thresholds: {text!r} is no list of numbers", hint="write --thresholds 0.4,0.5,0.6"
        ) from None
    return {**flags, "thresholds": thresholds}


def _stored_settings(out: str | None) -> dict[str, Any]:
    """What the store at `out` was made with, so that it can be finished or retried without repeating its flags.

    Where and how to run is not taken over: it may be another machine.
    """
    from dyntok.config import OPERATIONAL
    from dyntok.errors import StoreError, UsageError
    from dyntok.store import DatasetInfo, StoreRoot

    hint = "give files, folders, globs, manifests or tars; without them, encode resumes the store at --out"
    if out is None:
        raise UsageError("no inputs were given", hint=hint)
    try:
        root = StoreRoot.open(out)
        if not root.exists("dataset.json"):
            raise UsageError(f"no inputs were given, and {out} holds no store to resume", hint=hint)
    except StoreError as error:
        raise UsageError(f"no inputs were given, and there is no store to resume: {error}", hint=hint) from error
    stored = DatasetInfo.load(root).config
    kept = {"model", "revision"} | (stored.keys() - OPERATIONAL)
    return {name: value for name, value in stored.items() if name in kept}
