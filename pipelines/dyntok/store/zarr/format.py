"""How a shard is laid out as a Zarr group: contiguous ragged arrays, as in CF, with their chunks and codecs.

Arrays of the group of a shard that holds V videos, F frames, N tokens (sums over its videos):

=================  ===================  =======  ==================================================================
array              shape                dtype    content
=================  ===================  =======  ==================================================================
`tokens`           [N, D]               stored   uint16 with attribute `logical_dtype: bfloat16`, else the dtype
`token_scale`      [N]                  float32  int8 tokens only: token = int8 * scale
`group_size`       [N]                  uint8
`row_splits`       [F*R + 1]            int64    prefix sums of tokens per row over the whole shard
`video_splits`     [V + 1]              int64    prefix sums of tokens per video
`frame_splits`     [V + 1]              int64    prefix sums of frames per video
`similarity`       [F, R, C]            float32
`frame_index`      [F]                  int64
`frame_pts`        [F]                  float64
`meta_json`        [bytes]              uint8    every video's JSON, one after the other, UTF-8
`meta_splits`      [V + 1]              int64    prefix sums of JSON bytes
=================  ===================  =======  ==================================================================

In the explicit layout there is `row_marker_index` [F*R] int64 too (positions within the video's own sequence), and a
group per further level, `t050` for 0.50, with its own `tokens`, `token_scale`, `group_size`, `row_splits`,
`video_splits` and `row_marker_index`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyntok.errors import DamageError
from dyntok.store.dataset import DatasetInfo
from dyntok.store.tensorfile import numpy_dtype

MAX_META_BYTES = 2**20
_CHUNK_BYTES = 2**20
_CHUNKS_PER_SHARD = 64
_MAX_CHUNK_BYTES = 2**27
_MAX_CHUNKS_PER_SHARD = 2**14
_BYTE_CODECS = {"bytes", "blosc", "crc32c"}


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One array: rows along the first axis, of `row_shape`. `dimensions` names every axis."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        return int(math.prod(self.row_shape) * np.dtype(self.dtype).itemsize)

    @property
    def chunk_rows(self) -> int:
        """Rows of an inner chunk: a power of two near 1 MiB, at most 65536."""
        rows = max(1, _CHUNK_BYTES // self.row_bytes)
        return min(2**16, 1 << (rows.bit_length() - 1))

    @property
    def shard_rows(self) -> int:
        """Rows of one file."""
        return self.chunk_rows * _CHUNKS_PER_SHARD


def level_columns(info: DatasetInfo) -> list[ColumnSpec]:
    """Arrays that every level has."""
    tokens = numpy_dtype(info.dtype).name
    columns = [
        ColumnSpec("tokens", tokens, (info.token_dim,), ("token", "token_dim")),
        ColumnSpec("group_size", "uint8", (), ("token",)),
        ColumnSpec("row_splits", "int64", (), ("row_edge",)),
        ColumnSpec("video_splits", "int64", (), ("video_edge",)),
    ]
    if info.dtype == "int8":
        columns.append(ColumnSpec("token_scale", "float32", (), ("token",)))
    if info.layout == "explicit":
        columns.append(ColumnSpec("row_marker_index", "int64", (), ("row",)))
    return columns


def video_columns(info: DatasetInfo) -> list[ColumnSpec]:
    """Arrays of the videos themselves, beside the tokens."""
    grid = (info.grid.rows, info.grid.cols)
    return [
        ColumnSpec("similarity", "float32", grid, ("frame", "grid_row", "grid_col")),
        ColumnSpec("frame_index", "int64", (), ("frame",)),
        ColumnSpec("frame_pts", "float64", (), ("frame",)),
        ColumnSpec("frame_splits", "int64", (), ("video_edge",)),
        ColumnSpec("meta_json", "uint8", (), ("byte",)),
        ColumnSpec("meta_splits", "int64", (), ("video_edge",)),
    ]


def codecs(spec: ColumnSpec) -> tuple[Any, ...]:
    """Byte shuffle and zstd at level 1, over a whole chunk at once; then a CRC-32C of it.

    Blosc's own choice is blocks of some 32 KiB, in which zstd finds far less. Of bfloat16 tokens of the demo model (in
    brackets: of a random tower of so400m's size), share of the raw size, and MB/s of one core written / read: this
    0.63 (0.63), 440 (580) / 1950 (1430); in Blosc's blocks zstd 1 0.77 (0.76), 390 (450) / 690 (650), and zstd 3 0.70
    (0.70), 150 (190) / 710 (870); bit shuffle with LZ4 9 0.69 (0.78), 890 (840) / 2180 (2310). Level 3 gains nothing.
    `tests/benchmarks/bench_storage.py` has them all. Readers take whatever Blosc wrote.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    size = np.dtype(spec.dtype).itemsize
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=size, blocksize=_CHUNK_BYTES)
    return blosc, Crc32cCodec()


def check_array_metadata(metadata: Any, spec: ColumnSpec, where: str) -> int:
    """Check a stored array's `zarr.json` before zarr reads it: dtype, shape, codecs and chunk sizes.

    Returns the number of rows. Raises DamageError: what we did not write is not decoded.
    """
    try:
        shape, outer = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
        (sharding,) = metadata["codecs"]
        inner = sharding["configuration"]["chunk_shape"]
        names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
        index_names = [codec["name"] for codec in sharding["configuration"]["index_codecs"]]
        sizes = [*shape, *outer, *inner]
        problems = {
            "node": metadata["zarr_format"] != 3 or metadata["node_type"] != "array",
            "dtype": metadata["data_type"] != spec.dtype,
            "shape": tuple(shape[1:]) != spec.row_shape,
            "size": any(type(size) is not int or not 0 <= size < 2**48 for size in sizes),
            "chunk grid": metadata["chunk_grid"]["name"] != "regular",
            "codec": sharding["name"] != "sharding_indexed" or not _BYTE_CODECS.issuperset(names),
            "checksum": names[-1] != "crc32c" or index_names != ["bytes", "crc32c"],
            "transformer": bool(metadata.get("storage_transformers")),
            "fill value": metadata["fill_value"] != 0,
            "keys": metadata["chunk_key_encoding"] != {"name": "default", "configuration": {"separator": "/"}},
        }
        if not any(problems.values()):
            row_size = spec.row_bytes // math.prod(spec.row_shape)
            problems["chunk size"] = not 0 < math.prod(inner) * row_size <= _MAX_CHUNK_BYTES
            problems["shard size"] = math.prod(outer) > math.prod(inner) * _MAX_CHUNKS_PER_SHARD
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DamageError(f"{where} has no valid array metadata: {error!r}") from error
    bad = [name for name, problem in problems.items() if problem]
    if bad:
        raise DamageError(f"{where} is no array of a dyntok shard ({', '.join(bad)})")
    return int(shape[0])
