"""The safetensors format, small and exact: a writer whose tensors are aligned, a parser that copies nothing.

https://huggingface.co/docs/safetensors/index#format: eight bytes of header length, a JSON header, the tensors.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dyntok.errors import DamageError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
BytesLike = bytes | bytearray | memoryview | mmap.mmap

# bfloat16 has no numpy dtype: its bit patterns travel as uint16.
_NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
TOKEN_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "int8": "I8"}
DATA_ALIGNMENT = 64
MAX_HEADER_BYTES = 2**20
_MAX_TENSORS = 256


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype (safetensors name), shape and byte range of one tensor, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return _NUMPY_DTYPES[self.dtype]


def numpy_dtype(token_dtype: str) -> np.dtype[Any]:
    """numpy dtype that carries tokens of `bfloat16 | float16 | float32 | int8`."""
    return _NUMPY_DTYPES[TOKEN_DTYPES[token_dtype]]


def encode_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Header of a file that holds `tensors` (name -> safetensors dtype and shape) in this order, without holes.

    Padded with spaces so that data begin at a multiple of 64 bytes. A tensor is aligned to its element size if the
    caller lists wider dtypes first.

    Returns:
        The header's bytes, and the size of the whole file.
    """
    content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * _NUMPY_DTYPES[dtype].itemsize
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + offset


def header_length(first_bytes: bytes, file_bytes: int, where: str) -> int:
    """Where data begin, from a file's first eight bytes. Raises DamageError if it cannot be."""
    length = int.from_bytes(first_bytes[:8], "little")
    if len(first_bytes) < 8 or length > MAX_HEADER_BYTES or 8 + length > file_bytes:
        raise DamageError(f"{where} has no valid safetensors header")
    return 8 + length


def parse_header(header: bytes, file_bytes: int, where: str) -> dict[str, TensorSpec]:
    """Tensors of a file of `file_bytes` that begins with `header`; every size and offset is checked.

    Raises DamageError, naming `where`.
    """
    start = header_length(header, file_bytes, where)
    if len(header) < start:
        raise DamageError(f"the header of {where} is cut")
    try:
        content = json.loads(header[8:start])
        content.pop("__metadata__", None)
        if len(content) > _MAX_TENSORS:
            raise ValueError(f"{len(content)} tensors")
        specs = {name: _spec(entry, start) for name, entry in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(f"the safetensors header of {where} is invalid: {error}") from error
    position = start
    for spec in sorted(specs.values(), key=lambda spec: (spec.begin, spec.end)):
        if spec.begin != position:
            raise DamageError(f"the tensors of {where} overlap or leave holes")
        position = spec.end
    if position != file_bytes:
        raise DamageError(f"the tensors of {where} end at byte {position} of {file_bytes}")
    return specs


def _spec(entry: dict[str, Any], start: int) -> TensorSpec:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _NUMPY_DTYPES:
        raise ValueError(f"dtype {dtype!r}")
    if len(shape) > 8 or any(type(size) is not int or not 0 <= size < 2**48 for size in shape):
        raise ValueError(f"shape {shape!r}")
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or begin < 0:
        raise ValueError(f"offsets {offsets!r}")
    if end - begin != math.prod(shape) * _NUMPY_DTYPES[dtype].itemsize:
        raise ValueError(f"offsets {offsets!r} do not fit shape {shape!r}")
    return TensorSpec(dtype, tuple(shape), start + begin, start + end)


def view_tensor(buffer: BytesLike, spec: TensorSpec, offset: int = 0) -> Array:
    """Zero-copy, read-only array of one tensor; `offset` is where the safetensors file begins in `buffer`."""
    count = math.prod(spec.shape)
    if count == 0:
        array = np.empty(spec.shape, spec.numpy_dtype)
    else:
        flat = np.frombuffer(buffer, spec.numpy_dtype, count, offset + spec.begin)
        array = flat.reshape(spec.shape)
    array.flags.writeable = False
    return array


def parse_safetensors(buffer: BytesLike, where: str = "a safetensors member") -> dict[str, Array]:
    """Every tensor of a safetensors file in memory, as zero-copy read-only arrays; bfloat16 as uint16 bits.

    Raises DamageError if the file is cut, or its header is invalid.
    """
    view = memoryview(buffer).cast("B")
    header = bytes(view[: header_length(bytes(view[:8]), view.nbytes, where)])
    specs = parse_header(header, view.nbytes, where)
    return {name: view_tensor(view, spec) for name, spec in specs.items()}


def as_torch(array: Array, dtype: str) -> Tensor:
    """Tensor that shares the memory of `array`; `dtype` is the logical one (`bfloat16` for uint16 bits).

    Memory that nobody may write (bytes, another's array) is copied, as torch cannot mark a tensor read-only.
    Arrays of a memory-mapped shard are shared: the map is private, so writing to the tensor never reaches the file,
    but this process would read its own change afterwards.
    """
    import torch

    shared = array.view()
    try:
        shared.flags.writeable = True
    except ValueError:
        shared = array.copy()
    tensor = torch.from_numpy(shared)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def save_tensors(tensors: Mapping[str, tuple[str, Array]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole small safetensors file: name -> (safetensors dtype, array); bfloat16 arrays are uint16 bits."""
    header, _ = encode_header({name: (dtype, array.shape) for name, (dtype, array) in tensors.items()}, metadata or {})
    return b"".join([header, *(raw_bytes(array) for _, array in tensors.values())])


def raw_bytes(array: Array) -> memoryview:
    """Little-endian C-order bytes of an array, without a copy where it already is that."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data
