"""Checkpoint files: a local folder or the hub, safetensors only, and of those only the needed tensors.

Tensors are read one at a time through a memory map, so that the LLM's part of a file costs neither time nor memory.
Pickled weights (`.bin`, `.pt`) are refused: loading one can run any code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dyntok.errors import CheckpointError
from dyntok.vision.layout import canonical_name, canonical_names

NameOf = Callable[[str], str | None]
"""The name by which a stored tensor is asked for, or None if it is not needed."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# In the order in which transformers' video processors look for their settings.
PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")

_MAX_JSON_BYTES = 64 * 2**20
_CONVERT_HINT = (
    f"dyntok reads safetensors only ({WEIGHTS} or {INDEX}); pickled weights (.bin, .pt) can run code when loaded: "
    "if you trust them, load the model with transformers and save_pretrained() it to a folder"
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one needed tensor is: its key in `path`, and its shape."""

    path: Path
    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint that was found: its configs, and the needed tensors by canonical name.

    `documents` are the JSON files that were asked for beside `config.json`, as far as they are there.
    """

    name: str
    config: dict[str, Any]
    documents: dict[str, dict[str, Any]]
    tensors: dict[str, StoredTensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each needed tensor that is stored."""
        return {name: stored.shape for name, stored in self.tensors.items()}

    def fitting(self, expected: Mapping[str, tuple[int, ...]], part: str, optional: Collection[str] = ()) -> list[str]:
        """Sorted names of the tensors of `part` that are stored, with the shapes that the config implies.

        Raises CheckpointError: one has another shape, or is missing and not `optional`.
        """
        if missing := sorted(expected.keys() - self.tensors.keys() - set(optional)):
            raise CheckpointError(
                f"{self.name} lacks {len(missing)} tensors of its {part}, {missing[0]} among them",
                hint="is it complete, and does config.json belong to it? A LoRA must be merged into its base first",
            )
        names = sorted(expected.keys() & self.tensors.keys())
        for name in names:
            if self.tensors[name].shape != expected[name]:
                raise CheckpointError(
                    f"{name} has shape {list(self.tensors[name].shape)}, but config.json implies "
                    f"{list(expected[name])}",
                    hint="config.json and weights do not belong together",
                )
        return names

    def read(self, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the named tensors on the CPU, memory-mapped. Raises CheckpointError if a file is damaged."""
        with ExitStack() as stack:
            handles: dict[Path, Any] = {}
            for name in names:
                stored = self.tensors[name]
                try:
                    if stored.path not in handles:
                        handles[stored.path] = stack.enter_context(safe_open(stored.path, framework="pt"))
                    tensor = handles[stored.path].get_tensor(stored.key)
                except (SafetensorError, OSError) as error:
                    raise _damaged(stored.path, error) from error
                yield name, tensor


def find_checkpoint(
    model: str,
    revision: str | None,
    name_of: NameOf = canonical_name,
    documents: tuple[str, ...] = PROCESSOR_FILES,
) -> CheckpointFiles:
    """Locate a folder or hub id and list its needed tensors, by default the visual front end's.

    From a hub come only the named documents and the files that hold needed tensors. Raises CheckpointError.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{model} is a folder, which has no revision {revision!r}", hint="drop --revision")
        return _open_folder(folder, folder.resolve().name, name_of, documents)
    if folder.exists() or model.startswith(("/", ".", "~")) or model.count("/") > 1 or "\\" in model:
        raise CheckpointError(
            f"there is no checkpoint folder at {model}",
            hint="name a folder with config.json and safetensors, a hub id such as "
            "llava-hf/llava-onevision-qwen2-7b-ov-hf, or `demo`",
        )
    return _open_folder(_download(model, revision, name_of, documents), model, name_of, documents)


def _download(repo: str, revision: str | None, name_of: NameOf, documents: tuple[str, ...]) -> Path:
    """The folder of a hub's checkpoint with the named documents and the files that hold needed tensors."""
    from dyntok.vision.hub import fetch_snapshot  # imports huggingface_hub, which takes a while

    folder = fetch_snapshot(repo, revision, ["config.json", INDEX, *documents])
    indexed = (folder / INDEX).is_file()
    shards = sorted(_needed_shards(folder, name_of)) if indexed else [WEIGHTS]
    # The name of the folder is the commit, so that both steps stay at one.
    return fetch_snapshot(repo, folder.name, shards) if shards else folder


def _open_folder(folder: Path, name: str, name_of: NameOf, documents: tuple[str, ...]) -> CheckpointFiles:
    """Read the configs and the tensor headers of a checkpoint folder."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json", hint="name the folder that save_pretrained() wrote")
    found = {file: _read_json(folder / file) for file in documents if (folder / file).is_file()}
    return CheckpointFiles(name, _read_json(folder / "config.json"), found, _find_tensors(folder, name_of))


def _read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises CheckpointError if the file is none, or is too large to be one of ours."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is too large to be a checkpoint's JSON file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return data


def _needed_shards(folder: Path, name_of: NameOf) -> dict[str, list[str]]:
    """Keys of needed tensors by shard file, from a folder's safetensors index. Raises CheckpointError."""
    weight_map = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{INDEX} has no weight_map")
    shards: dict[str, list[str]] = {}
    for key, shard in weight_map.items():
        if name_of(key) is None:
            continue
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(f"{INDEX} names the shard {shard!r}, which is no plain file name")
        shards.setdefault(shard, []).append(key)
    return shards


def _find_tensors(folder: Path, name_of: NameOf) -> dict[str, StoredTensor]:
    if (folder / INDEX).is_file():
        shards: dict[str, list[str] | None] = {**_needed_shards(folder, name_of)}
    elif (folder / WEIGHTS).is_file():
        shards = {WEIGHTS: None}
    else:
        raise CheckpointError(f"{folder} holds no safetensors weights", hint=_CONVERT_HINT)
    found: dict[str, StoredTensor] = {}
    for shard, keys in sorted(shards.items()):
        found |= _read_header(folder / shard, keys, name_of)
    return {name: found[key] for name, key in canonical_names(found, name_of).items()}


def _read_header(path: Path, keys: list[str] | None, name_of: NameOf) -> dict[str, StoredTensor]:
    """Needed tensors of one file by stored key; `keys` are those that the index promises."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            wanted = {key for key in stored if name_of(key)} if keys is None else set(keys)
            if missing := sorted(wanted - stored):
                raise CheckpointError(f"{path} does not hold {missing[0]}, which {INDEX} promises")
            return {key: StoredTensor(path, key, tuple(file.get_slice(key).get_shape())) for key in wanted}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", hint="complete the download of the checkpoint") from error
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot read {path}: {error}",
        hint="the file is incomplete or damaged (or a git-lfs pointer: `git lfs pull`); download it again",
    )
