"""What an evaluation harness and this package agree on: its settings, the videos it shows, how it wants answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch

from dyntok.adapters.answering import Answerer, Generation, View
from dyntok.adapters.huggingface import TokenLM, load_language_model
from dyntok.adapters.video_ids import ID_RULES, VideoFinder
from dyntok.errors import CheckpointError, ConfigError, StoreError, UsageError
from dyntok.load import open_store
from dyntok.merging import MarkerMode
from dyntok.vision.files import find_checkpoint
from dyntok.vision.projector import VisionProjector

logger = logging.getLogger(__name__)

DTYPES = ("bfloat16", "float16", "float32")
MAX_NEW_TOKENS = 1024
_PASSED = (
    "do_sample",
    "early_stopping",
    "length_penalty",
    "max_new_tokens",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
)
_SAMPLING = ("temperature", "top_p", "top_k")
_LLAVA_MARKERS: dict[str, MarkerMode] = {
    "grid": "row",
    "frame": "frame",
    "one_token": "video",
    "no_token": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The model arguments of an evaluation.

    Attributes:
        store: folder or URL of the store with the benchmark's videos.
        pretrained: folder or hub id of the checkpoint whose language model answers.
        revision: of the checkpoint on the hub.
        threshold, budget, frames, markers: as `StoredVideo.at` takes them. Without `markers`, what the checkpoint was
            trained with: see `default_markers`.
        device: by default the process's own GPU, or the CPU.
        dtype: of the language model.
        batch_size: questions at once.
        id_from: how a path of the benchmark becomes an id: see `VideoFinder`.
        missing: `error` ends an evaluation before its first answer if a video is not in the store; `empty` gives its
            questions an empty answer, and logs how many there were.
        system_prompt: begins every conversation.
    """

    store: str
    pretrained: str
    revision: str | None = None
    threshold: float | None = None
    budget: int | None = None
    frames: int | Literal["fit"] | None = None
    markers: MarkerMode | None = None
    device: str | None = None
    dtype: str = "bfloat16"
    batch_size: int = 1
    id_from: str = "auto"
    missing: str = "error"
    system_prompt: str | None = None

    @classmethod
    def create(cls, arguments: Mapping[str, Any]) -> EvaluationSettings:
        """Check arguments as a command line gives them. Raises ConfigError that names the wrong one."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise ConfigError(f"unknown model argument: {', '.join(unknown)}", hint=f"known are {', '.join(known)}")
        for name in ("store", "pretrained"):
            if arguments.get(name) in (None, ""):
                raise ConfigError(
                    f"the model argument {name} is missing",
                    hint="--model_args store=tokens/,pretrained=llava-hf/llava-onevision-qwen2-7b-ov-hf",
                )
        given = {name: value for name, value in arguments.items() if value is not None}
        checks: dict[str, Callable[[str, Any], Any]] = {
            **dict.fromkeys(("store", "pretrained", "revision", "device", "system_prompt"), _text),
            **dict.fromkeys(("budget", "batch_size"), _count),
            "frames": _frames,
            "threshold": _threshold,
        }
        chosen: dict[str, Any] = {
            name: checks[name](name, value) if name in checks else value for name, value in given.items()
        }
        for name, choices in (
            ("markers", get_args(MarkerMode)),
            ("dtype", DTYPES),
            ("id_from", ID_RULES),
            ("missing", ("error", "empty")),
        ):
            if name in chosen and chosen[name] not in choices:
                raise ConfigError(f"{name}={chosen[name]} is none of {', '.join(choices)}")
        if chosen.get("frames") == "fit" and "budget" not in chosen:
            raise ConfigError("frames=fit goes with a budget", hint="add budget=, or give a number of frames")
        return cls(**chosen)


@dataclass(frozen=True, slots=True)
class Shown:
    """The videos that the questions of a benchmark show.

    Attributes:
        ids: a store id for each question; None where it shows nothing, and where the video is missing.
        missing: number of a question -> why its video is not there.
    """

    ids: tuple[str | None, ...]
    missing: Mapping[int, StoreError]

    @property
    def reasons(self) -> str:
        """Why videos are missing: the first three reasons."""
        reasons = list(dict.fromkeys(error.message for error in self.missing.values()))
        return "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")


def find_shown(finder: VideoFinder, visuals: Iterable[Any]) -> Shown:
    """Look up what each question shows. Raises UsageError if one shows something else than one whole video."""
    ids: list[str | None] = []
    missing: dict[int, StoreError] = {}
    for number, visual in enumerate(visuals):
        path = video_path(visual)
        try:
            ids.append(None if path is None else finder.find(path))
        except StoreError as error:
            missing[number] = error
            ids.append(None)
    return Shown(tuple(ids), missing)


def require_all(shown: Shown) -> None:
    """Raise one StoreError for all the videos that are missing."""
    if shown.missing:
        raise StoreError(
            f"the videos of {len(shown.missing)} of {len(shown.ids)} questions are missing: {shown.reasons}",
            hint="encode them into the store, or pass missing=empty to answer these questions with nothing",
        )


def video_path(visual: Any) -> str | None:
    """The path of the one video that a question shows; None if it shows nothing.

    Harnesses give a path, a dict with `path` or `url`, or a list of these. Raises UsageError for anything else.
    """
    items = visual if isinstance(visual, list | tuple) else [] if visual is None else [visual]
    if not items:
        return None
    if len(items) > 1:
        raise UsageError(
            f"a question shows {len(items)} things, and a stored video is shown alone",
            hint="choose a task whose questions are about one video each",
        )
    item = items[0]
    if isinstance(item, Mapping):
        if any(item.get(name) is not None for name in ("video_start", "video_end", "start_time", "end_time")):
            raise UsageError(
                f"a question shows a part of a video, and stored videos are shown whole: {dict(item)!r:.200}",
                hint="encode the clips themselves, and point the task at them",
            )
        item = item.get("path") or item.get("url")
    if not isinstance(item, str):
        raise UsageError(
            f"a question shows a {type(item).__name__}, not the path of a video",
            hint="this model answers video tasks only",
        )
    return item


def generation_of(wanted: Mapping[str, Any]) -> Generation:
    """What a task asks of generation, as `generate` takes it: greedy unless it samples, 1024 tokens at most.

    Without `do_sample`, a temperature above zero means sampling. Settings that mean nothing here are left out, with a
    warning.
    """
    until = wanted.get("until") or ()
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    settings = {name: wanted[name] for name in _PASSED if wanted.get(name) is not None}
    settings.setdefault("max_new_tokens", wanted.get("max_gen_toks") or MAX_NEW_TOKENS)
    temperature = float(settings.get("temperature", 1.0))
    sampled = bool(settings.get("do_sample", "temperature" in settings)) and temperature > 0
    settings["do_sample"] = sampled
    if not sampled:
        # None, not absent: the checkpoint's own generation settings may ask for sampling.
        settings |= dict.fromkeys(_SAMPLING)
    ignored = sorted(set(wanted) - {*_PASSED, "until", "max_gen_toks"})
    if ignored:
        logger.warning("ignored generation settings: %s", ", ".join(ignored))
    return Generation(settings, stop)


def default_markers(config: Mapping[str, Any], has_marker: bool) -> MarkerMode:
    """The marker mode that a checkpoint was trained with, from its `config.json`.

    LLaVA-NeXT names it (`mm_newline_position`: LLaVA-Video's `grid` is one a row); Hugging Face's LLaVA-OneVision puts
    one after the video; other models were trained on stores, whose own mode is one a row. `none` if there is no marker
    to put.
    """
    if not has_marker:
        return "none"
    named = config.get("mm_newline_position")
    if named in _LLAVA_MARKERS:
        return _LLAVA_MARKERS[named]
    return "video" if config.get("model_type") == "llava_onevision" else "row"


def load_answerer(settings: EvaluationSettings, device: torch.device) -> Answerer:
    """Open the store, and load the checkpoint's language model, tokenizer, row marker (else the store's) and, for a
    store in space vision, projector.

    Raises:
        StoreError: there is no complete store.
        CheckpointError: the checkpoint cannot be used.
        UsageError: markers are asked for and there is none.
    """
    model, revision, dtype = settings.pretrained, settings.revision, getattr(torch, settings.dtype)
    store = open_store(settings.store)
    files = find_checkpoint(model, revision)
    own = dict(files.read(["row_marker"] if "row_marker" in files.tensors else []))
    marker = own.get("row_marker", store.row_marker)
    markers = settings.markers or default_markers(files.config, marker is not None)
    if markers != "none" and marker is None:
        raise UsageError(
            f"neither {model} nor the store has a row marker for markers={markers}",
            hint="pass markers=none",
        )
    project = None
    if store.info.space == "vision":
        project = VisionProjector.from_checkpoint(model, revision=revision, dtype=dtype, device=device)
    return Answerer(
        store,
        TokenLM(load_language_model(model, revision=revision, dtype=dtype, device=device), marker, project=project),
        _tokenizer(model, revision),
        View(settings.threshold, settings.budget, settings.frames, markers),
        settings.system_prompt,
    )


def _tokenizer(model: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{model} has no tokenizer that transformers can load: {error}",
            hint="put the tokenizer's files beside the weights: tokenizer.save_pretrained(folder)",
        ) from error


def _text(_: str, value: Any) -> str:
    return str(value)


def _count(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or number != float(value):
        raise ConfigError(f"{name}={value} is no whole number above zero")
    return number


def _frames(name: str, value: Any) -> int | Literal["fit"]:
    return "fit" if value == "fit" else _count(name, value)


def _threshold(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={value} is no number") from error
