"""Rules that every stored sample obeys, whatever the shard format: group structure, JSON, shapes, finiteness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import boundaries, groups_of
from dyntok.errors import DamageError, StoreError, VideoError
from dyntok.records import Grid, Level, Sample, SampledFrames
from dyntok.store.dataset import DatasetInfo
from dyntok.store.names import threshold_name
from dyntok.store.signed import canonical_json
from dyntok.store.tensorfile import Array, numpy_dtype

MAX_TOKENS = 2**31 - 1
MAX_JSON_BYTES = 2**24
_EXPONENTS: dict[str, Any] = {
    "bfloat16": np.uint16(0x7F80),
    "float16": np.uint16(0x7C00),
    "float32": np.uint32(0x7F800000),
}
_BLOCK_ITEMS = 2**16


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """Tokens of one video at one stored threshold, or of some of its frames.

    Attributes:
        threshold: patches merged where similarity > threshold.
        tokens: `[N, D]`; bfloat16 as uint16 bits (see `as_torch`).
        group_size: `[N]` uint8.
        row_splits: `[T*R + 1]` int32, from 0.
        token_scale: `[N]` float32 for int8 tokens (token = int8 * scale), else None.
    """

    threshold: float
    tokens: Array
    group_size: npt.NDArray[np.uint8]
    row_splits: npt.NDArray[np.int32]
    token_scale: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class LevelGroups:
    """A `StoredLevel` without its tokens."""

    threshold: float
    group_size: npt.NDArray[np.uint8]
    row_splits: npt.NDArray[np.int32]
    token_scale: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class VideoHead:
    """Everything of a stored video but its tokens.

    Attributes:
        thresholds: of the stored levels, falling.
        similarity: `[T, R, C]` float32, -inf in column 0.
        frames: index in the source and seconds of each frame.
        meta: the sample's JSON.
    """

    key: str
    id: str
    grid: Grid
    token_dim: int
    dtype: str
    thresholds: tuple[float, ...]
    similarity: npt.NDArray[np.float32]
    frames: SampledFrames
    meta: dict[str, Any]

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width of the source's frames in pixels; None where the store does not say."""
        video = self.meta.get("video")
        height, width = (video.get("height"), video.get("width")) if isinstance(video, dict) else (0, 0)
        if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
            return height, width
        return None


def count_tokens(similarity: npt.NDArray[np.float32], thresholds: tuple[float, ...]) -> dict[str, int]:
    """Tokens at each threshold, by `threshold_name`."""
    return {threshold_name(t): int(np.count_nonzero(boundaries(similarity, t))) for t in thresholds}


def marker_index(row_splits: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """`row_splits[r + 1] + r` for every row."""
    return row_splits[1:].astype(np.int64) + np.arange(len(row_splits) - 1)


def meta_json(sample: Sample) -> bytes:
    """The JSON member: `meta` and what identifies the sample. Raises StoreError if it cannot be written."""
    own = {
        "id": sample.id,
        "key": sample.key,
        "grid": {"rows": sample.grid.rows, "cols": sample.grid.cols},
        "token_dim": sample.token_dim,
        "dtype": sample.dtype,
        "thresholds": [level.threshold for level in sample.levels],
    }
    clash = [name for name in own if name in sample.meta and sample.meta[name] != own[name]]
    if clash:
        raise StoreError(f"the metadata of {sample.id!r} contradict the sample: {', '.join(clash)}")
    try:
        data = canonical_json({**sample.meta, **own})
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"the metadata of {sample.id!r} cannot be written as JSON: {error}") from error
    if len(data) > MAX_JSON_BYTES:
        raise StoreError(f"the metadata of {sample.id!r} have {len(data)} bytes; at most {MAX_JSON_BYTES} fit")
    return data


def parse_meta(data: bytes, where: str) -> dict[str, Any]:
    """JSON member as a dict with the fields `meta_json` adds. Raises DamageError."""
    try:
        meta = json.loads(data)
        if not all(isinstance(meta[name], str) for name in ("id", "key", "dtype")):
            raise ValueError("id, key and dtype are text")
        Grid(meta["grid"]["rows"], meta["grid"]["cols"])
        [threshold_name(threshold) for threshold in meta["thresholds"]]
        if type(meta["token_dim"]) is not int or not meta["thresholds"]:
            raise ValueError("token_dim is a number and there is a threshold")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamageError(f"the JSON of {where} is damaged: {error!r}") from error
    return cast("dict[str, Any]", meta)


def head_from(
    meta: dict[str, Any],
    similarity: npt.NDArray[np.float32],
    frame_index: npt.NDArray[np.int64],
    frame_pts: npt.NDArray[np.float64],
    where: str,
) -> VideoHead:
    """A head whose parts fit each other. Raises DamageError."""
    grid = Grid(meta["grid"]["rows"], meta["grid"]["cols"])
    if similarity.shape[1:] != (grid.rows, grid.cols) or similarity.dtype != np.float32:
        raise DamageError(f"the similarity map of {where} is {similarity.dtype} {similarity.shape}")
    if not frame_index.shape == frame_pts.shape == similarity.shape[:1]:
        raise DamageError(f"{where} has {len(similarity)} frames but {len(frame_index)} frame numbers")
    return VideoHead(
        key=meta["key"],
        id=meta["id"],
        grid=grid,
        token_dim=meta["token_dim"],
        dtype=meta["dtype"],
        thresholds=tuple(float(threshold) for threshold in meta["thresholds"]),
        similarity=similarity,
        frames=SampledFrames(frame_index, frame_pts),
        meta=meta,
    )


def check_sample(sample: Sample, info: DatasetInfo) -> None:
    """Refuse a sample that is not what `info` announces, or whose groups do not follow from its map.

    Raises StoreError; nothing that reaches it is the video's fault.
    """
    expected = (sample.frame_count, info.grid.rows, info.grid.cols)
    if sample.grid != info.grid or sample.similarity.shape != expected or sample.similarity.dtype != np.float32:
        raise StoreError(f"{sample.id!r}: the similarity map is {sample.similarity.shape}, not {expected}")
    if sample.frame_count == 0:
        raise StoreError(f"{sample.id!r} has no frames")
    if (sample.token_dim, sample.dtype) != (info.token_dim, info.dtype):
        raise StoreError(f"{sample.id!r} has tokens [N, {sample.token_dim}] {sample.dtype}, not as in the store")
    if tuple(level.threshold for level in sample.levels) != info.level_thresholds:
        raise StoreError(f"{sample.id!r} has other levels than the store's {info.level_thresholds}")
    problem = map_problem(sample.similarity)
    if problem:
        raise StoreError(f"{sample.id!r}: {problem}")
    for level in sample.levels:
        if level.token_count > MAX_TOKENS:
            raise StoreError(
                f"{sample.id!r} has {level.token_count} tokens; a sample holds at most {MAX_TOKENS}",
                hint="sample fewer frames (--frames, or --fps with --max-frames)",
            )
        problem = groups_problem(sample.similarity, level, level.token_count, info.dtype)
        if problem:
            raise StoreError(f"{sample.id!r} at threshold {level.threshold:g}: {problem}")


def map_problem(similarity: npt.NDArray[np.float32]) -> str | None:
    """What is wrong with a similarity map `[T, R, C]`, None if it is right."""
    inner = similarity[:, :, 1:]
    if not np.all(similarity[:, :, 0] == -np.inf):
        return "column 0 of the similarity map is not -inf"
    if not np.all(np.abs(inner) <= 1.0):
        return "the similarity map has values outside [-1, 1]"
    return None


def groups_problem(
    similarity: npt.NDArray[np.float32], groups: LevelGroups | Level, count: int, dtype: str
) -> str | None:
    """Where the groups of a level of `count` tokens contradict the map; None if nowhere."""
    group_size, row_splits = groups_of(similarity, groups.threshold)
    if count != len(group_size):
        return f"there are {count} tokens, the similarity map gives {len(group_size)}"
    if groups.group_size.dtype != np.uint8 or not np.array_equal(groups.group_size, group_size):
        return "group_size contradicts the similarity map"
    if groups.row_splits.dtype != np.int32 or not np.array_equal(groups.row_splits, row_splits):
        return "row_splits contradict the similarity map"
    scale = groups.token_scale
    if (scale is not None) != (dtype == "int8"):
        return "token_scale belongs to int8 tokens, and to no others"
    if scale is not None:
        is_array = scale.shape == (count,) and scale.dtype == np.float32
        if not is_array or not np.isfinite(scale).all() or (scale < 0).any():
            return "token_scale is not one finite, non-negative float32 a token"
    return None


def all_finite(tokens: Array, dtype: str) -> bool:
    """Whether no token holds a NaN or an infinity; bfloat16 are uint16 bits.

    Those are the numbers whose exponent has all bits set. Bits are looked at in blocks that stay in the cache.
    """
    if dtype == "int8":
        return True
    exponent = _EXPONENTS[dtype]
    bits = np.ascontiguousarray(tokens).reshape(-1).view(exponent.dtype)
    masked = np.empty(min(_BLOCK_ITEMS, bits.size), exponent.dtype)
    for first in range(0, bits.size, _BLOCK_ITEMS):
        block = bits[first : first + _BLOCK_ITEMS]
        if np.bitwise_and(block, exponent, out=masked[: block.size]).max() == exponent:
            return False
    return True


def checked_chunks(sample: Sample, level: Level) -> Iterator[Array]:
    """The level's token chunks, each checked.

    Raises StoreError for another shape or dtype than announced, VideoError `non_finite` for NaN and infinities.
    """
    seen = 0
    dtype = numpy_dtype(sample.dtype)
    for chunk in level.tokens:
        if chunk.ndim != 2 or chunk.shape[1] != sample.token_dim or chunk.dtype != dtype:
            raise StoreError(f"{sample.id!r}: a chunk of tokens is {chunk.dtype} {chunk.shape}")
        if not all_finite(chunk, sample.dtype):
            raise VideoError(
                "non_finite",
                f"tokens {seen} to {seen + len(chunk)} hold a NaN or an infinity as {sample.dtype}",
                hint="use a wider --dtype (bfloat16 or float32), or a wider --precision of the model",
            )
        seen += len(chunk)
        yield chunk
    if seen != level.token_count:
        raise StoreError(f"{sample.id!r}: {seen} tokens came, {level.token_count} were announced")
