"""One WebDataset sample, for pipelines that read shards without opening the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dyntok.errors import DamageError
from dyntok.store import as_torch, parse_safetensors

MAIN_MEMBER = "safetensors"


def decode_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Decode what `webdataset.WebDataset(urls)` yields; use it with `.map(dyntok.decode_sample)`.

    Args:
        sample: `__key__`, the bytes of the members `safetensors` and `json`, and in the explicit layout
            `t050.safetensors` and so on.

    Returns:
        `__key__`, `id`, `meta` (the JSON), and the tensors of the stored threshold: `tokens [N, D]`, `similarity
        [T, R, C]`, `group_size [N]`, `row_splits [T*R + 1]`, `frame_index [T]`, `frame_pts [T]`, for int8 also
        `token_scale [N]`. Further levels are under their suffix (`t050`), as dicts of tensors.

    Raises:
        DamageError: a member is missing or is not what the format says. Nothing is unpickled.
    """
    key = sample.get("__key__", "?")
    if MAIN_MEMBER not in sample or "json" not in sample:
        raise DamageError(f"sample {key} lacks its safetensors or json member")
    try:
        meta = json.loads(sample["json"])
        video_id, dtype = meta["id"], meta["dtype"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"the JSON of sample {key} is damaged: {error!r}") from error
    decoded: dict[str, Any] = {"__key__": key, "id": video_id, "meta": meta}
    decoded.update(_tensors(sample[MAIN_MEMBER], dtype, key))
    for name, data in sample.items():
        level, _, suffix = name.partition(".")
        if suffix == MAIN_MEMBER:
            decoded[level] = _tensors(data, dtype, key)
    return decoded


def _tensors(data: bytes, dtype: str, key: str) -> dict[str, Any]:
    arrays = parse_safetensors(data, f"sample {key}")
    logical = {name: dtype if name == "tokens" else str(array.dtype) for name, array in arrays.items()}
    return {name: as_torch(array, logical[name]) for name, array in arrays.items()}
