"""Our safetensors against the library's, in both directions, and against liars."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from dyntok.errors import DamageError
from dyntok.store import as_torch, parse_safetensors, save_tensors
from dyntok.store.tensorfile import DATA_ALIGNMENT, parse_header

DTYPES = {"F64": "f8", "I64": "i8", "F32": "f4", "I32": "i4", "F16": "f2", "I8": "i1", "U8": "u1"}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3)), max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_the_library_reads_what_we_write(kinds: list[tuple[str, list[int]]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = {
        f"t{i}": (dtype, rng.integers(-100 if dtype != "U8" else 0, 100, shape).astype(DTYPES[dtype]))
        for i, (dtype, shape) in enumerate(kinds)
    }
    data = save_tensors(arrays, {"format": "dyntok"})
    assert (8 + int.from_bytes(data[:8], "little")) % DATA_ALIGNMENT == 0
    loaded = safetensors.numpy.load(data)
    ours = parse_safetensors(data)
    assert loaded.keys() == ours.keys() == arrays.keys()
    for name, (_, array) in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        np.testing.assert_array_equal(ours[name], array)
        assert loaded[name].dtype == ours[name].dtype == array.dtype


def test_bfloat16_bits_survive_both_ways() -> None:
    tensor = torch.randn(5, 3).bfloat16()
    bits = tensor.view(torch.uint16).numpy()
    assert torch.equal(safetensors.torch.load(save_tensors({"x": ("BF16", bits)}))["x"], tensor)
    parsed = parse_safetensors(safetensors.torch.save({"x": tensor}))["x"]
    assert torch.equal(as_torch(parsed, "bfloat16"), tensor)


def test_as_torch_shares_what_may_be_written_and_copies_what_may_not() -> None:
    own = np.arange(4, dtype=np.float32)
    assert as_torch(own, "float32").data_ptr() == own.ctypes.data
    data = bytearray(save_tensors({"x": ("F32", own)}))
    parsed = parse_safetensors(data)["x"]
    assert not parsed.flags.writeable
    assert as_torch(parsed, "float32").data_ptr() == parsed.ctypes.data
    fixed = parse_safetensors(bytes(data))["x"]
    assert as_torch(fixed, "float32").data_ptr() != fixed.ctypes.data


def file_with(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HOSTILE = {
    "empty": b"",
    "short": b"\1\0\0",
    "huge header": file_with(entry(), b"1234", length=2**63),
    "header beyond file": file_with(entry(), b"1234", length=200),
    "header too large": file_with(b" " * (2**20 + 1)),
    "no json": file_with(b"{{{{"),
    "no object": file_with([1, 2]),
    "not utf-8": file_with(b'{"\xff": 1}'),
    "deep": file_with(b"[" * 100_000),
    "unknown dtype": file_with(entry("PICKLE"), b"1234"),
    "dtype no text": file_with(entry(["F32"]), b"1234"),
    "negative shape": file_with(entry(shape=[-1]), b"1234"),
    "bool shape": file_with(entry(shape=[True]), b"1234"),
    "float shape": file_with(entry(shape=[1.0]), b"1234"),
    "overflowing shape": file_with(entry(shape=[2**40, 2**40, 0]), b"1234"),
    "shape and offsets differ": file_with(entry(shape=[2]), b"1234"),
    "offsets beyond file": file_with(entry(shape=[2], offsets=[0, 8]), b"1234"),
    "negative offset": file_with(entry(offsets=[-4, 0]), b"1234"),
    "three offsets": file_with(entry(offsets=[0, 4, 8]), b"1234"),
    "hole": file_with(entry(offsets=[4, 8]), b"12345678"),
    "bytes left over": file_with(entry(), b"12345"),
    "overlap": file_with({**entry(), "y": entry()["x"]}, b"1234"),
    "too many": file_with({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(1000)}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_liars_are_refused(data: bytes) -> None:
    with pytest.raises(DamageError, match="the member"):
        parse_safetensors(data, "the member")


@given(st.binary(max_size=200))
def test_noise_is_refused_or_parsed_never_worse(data: bytes) -> None:
    try:
        arrays = parse_safetensors(data)
    except DamageError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(data)


def test_a_header_can_be_read_without_its_file() -> None:
    data = save_tensors({"x": ("F32", np.zeros((1000, 10), np.float32))})
    specs = parse_header(data[:200], len(data), "x")
    assert specs["x"].end == len(data) and specs["x"].end - specs["x"].begin == 40_000
