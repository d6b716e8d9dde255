"""Shards with valid digests from someone who means harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dyntok.errors import DamageError
from dyntok.store import CompletionRecord, DatasetInfo, StoreRoot, open_shard_reader, save_tensors
from dyntok.store.signed import digest_file
from dyntok.store.tar.stream import tar_header
from tests.support.samples import make_info, make_plan, read_video, write_shard

Metadata = dict[str, Any]


@pytest.fixture
def zarr_shard(tmp_path: Path) -> tuple[StoreRoot, DatasetInfo, CompletionRecord]:
    root = StoreRoot.open(str(tmp_path))
    info = make_info(shard_format="zarr")
    return root, info, write_shard(root, info, make_plan(0, ["a"]))[0]


def inner(metadata: Metadata) -> Metadata:
    return metadata["codecs"][0]["configuration"]


def outer(metadata: Metadata) -> Metadata:
    return metadata["chunk_grid"]["configuration"]


def add_codec(name: str) -> Callable[[Metadata], object]:
    return lambda m: inner(m)["codecs"].insert(0, {"name": name, "configuration": {}})


CHANGES: dict[str, Callable[[Metadata], object]] = {
    "pickle": add_codec("numcodecs.pickle"),
    "vlen-bytes": add_codec("vlen-bytes"),
    "vlen-utf8": add_codec("vlen-utf8"),
    "gzip": add_codec("gzip"),
    "no checksum": lambda m: inner(m)["codecs"].pop(),
    "no index checksum": lambda m: inner(m)["index_codecs"].pop(),
    "no sharding": lambda m: m.update(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}]),
    "object dtype": lambda m: m.update(data_type="variable_length_bytes"),
    "other dtype": lambda m: m.update(data_type="float64"),
    "dtype dict": lambda m: m.update(data_type={"name": "struct", "configuration": {}}),
    "huge chunk": lambda m: inner(m).update(chunk_shape=[2**40, 8]),
    "huge index": lambda m: (
        inner(m).update(chunk_shape=[1, 1]),
        outer(m).update(chunk_shape=[2**40, 8]),
    ),
    "zero chunk": lambda m: inner(m).update(chunk_shape=[0, 8]),
    "negative shape": lambda m: m.update(shape=[-1, 8]),
    "bool shape": lambda m: m.update(shape=[True, 8]),
    "wide": lambda m: m.update(shape=[10, 9]),
    "one-dimensional": lambda m: m.update(shape=[10]),
    "other keys": lambda m: m.update(chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}}),
    "fill value": lambda m: m.update(fill_value=7),
    "transformer": lambda m: m.update(storage_transformers=[{"name": "x"}]),
    "group": lambda m: m.update(node_type="group"),
    "zarr 2": lambda m: m.update(zarr_format=2),
    "empty": lambda m: m.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_array_metadata_that_we_did_not_write_are_refused(
    zarr_shard: tuple[StoreRoot, DatasetInfo, CompletionRecord],
    change: Callable[[Metadata], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, info, record = zarr_shard
    path = "shards/shard-000000.zarr/tokens/zarr.json"
    metadata = json.loads(root.read_bytes(path))
    change(metadata)
    root.write_atomic(path, json.dumps(metadata).encode())
    record = replace(record, files=tuple(digest_file(root, file.path) for file in record.files))
    reader = open_shard_reader(root, info, 0, record)
    reader.head(0)
    reader.groups(0)
    monkeypatch.setattr(zarr, "open_array", None)
    with pytest.raises(DamageError, match="tokens"):
        read_video(reader, 0)


def test_oversized_zarr_metadata_are_not_read(
    zarr_shard: tuple[StoreRoot, DatasetInfo, CompletionRecord],
) -> None:
    root, info, record = zarr_shard
    path = "shards/shard-000000.zarr/tokens/zarr.json"
    root.write_atomic(path, root.read_bytes(path) + b" " * 2**20)
    record = replace(record, files=tuple(digest_file(root, file.path) for file in record.files))
    with pytest.raises(Exception, match="more than"):
        read_video(open_shard_reader(root, info, 0, record), 0)


def test_a_flipped_bit_in_a_chunk_fails_its_checksum(
    zarr_shard: tuple[StoreRoot, DatasetInfo, CompletionRecord],
) -> None:
    root, info, record = zarr_shard
    path = "shards/shard-000000.zarr/tokens/c/0/0"
    data = bytearray(root.read_bytes(path))
    data[40] ^= 1
    root.write_atomic(path, bytes(data))
    with pytest.raises(DamageError, match="tokens cannot be read"):
        read_video(open_shard_reader(root, info, 0, record), 0)


@pytest.mark.parametrize("name", ["video_splits", "frame_splits", "meta_splits", "row_splits"])
@pytest.mark.parametrize("values", [[0, 10**9], [0, -5], [3, 4], "short"])
def test_splits_that_lead_astray_are_refused(
    zarr_shard: tuple[StoreRoot, DatasetInfo, CompletionRecord], name: str, values: Any, tmp_path: Path
) -> None:
    root, info, record = zarr_shard
    array = zarr.open_array(str(tmp_path / "shards/shard-000000.zarr" / name), mode="r+")
    if values == "short":
        array.resize((1,))
    else:
        array[-2:] = np.array(values)
    files = tuple(digest_file(root, path) for path in root.list("shards/shard-000000.zarr"))
    reader = open_shard_reader(root, info, 0, replace(record, files=files))
    with pytest.raises(DamageError):
        read_video(reader, 0)
    with pytest.raises(DamageError):
        read_video(reader, 0, [0])


# tars --------------------------------------------------------------------------------------------------------

GOOD = {
    "frame_pts": ("F64", np.zeros(1)),
    "frame_index": ("I64", np.zeros(1, np.int64)),
    "similarity": ("F32", np.array([[[-np.inf, 0.0], [-np.inf, 0.9]]], np.float32)),
    "row_splits": ("I32", np.array([0, 2, 3], np.int32)),
    "tokens": ("BF16", np.ones((3, 8), np.uint16)),
    "group_size": ("U8", np.array([1, 1, 2], np.uint8)),
}


def read_forged(tmp_path: Path, tensors: dict[str, Any], meta: Any = None, name: str = "k.safetensors") -> None:
    from dyntok.records import Grid, VideoRow

    info = make_info(grid=Grid(2, 2))
    good_meta = {
        "id": "v",
        "key": "k",
        "grid": {"rows": 2, "cols": 2},
        "token_dim": 8,
        "dtype": "bfloat16",
        "thresholds": [0.6],
    }
    data = tensors if isinstance(tensors, bytes) else save_tensors(tensors)
    text = meta if isinstance(meta, bytes) else json.dumps({**good_meta, **(meta or {})}).encode()
    tar = tar_header(name, len(data)) + data + bytes(-len(data) % 512)
    tar += tar_header("k.json", len(text)) + text + bytes(-len(text) % 512) + bytes(1024)
    (tmp_path / "shards").mkdir(exist_ok=True)
    (tmp_path / "shards/shard-000000.tar").write_bytes(tar)
    root = StoreRoot.open(str(tmp_path))
    row = VideoRow("v", "k", "v", 0, "done", row=0, offset=512, nbytes=len(data), frames=1)
    record = CompletionRecord(0, "", (digest_file(root, "shards/shard-000000.tar"),), (row,))
    reader = open_shard_reader(root, info, 0, record)
    read_video(reader, 0)
    read_video(reader, 0, [0])


def test_the_forger_can_write_a_good_shard_too(tmp_path: Path) -> None:
    read_forged(tmp_path, GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": None},
        {"group_size": None},
        {"row_splits": None},
        {"similarity": None},
        {"frame_pts": None},
        {"tokens": ("F16", np.ones((3, 8), np.float16))},
        {"tokens": ("BF16", np.ones((3, 9), np.uint16))},
        {"tokens": ("BF16", np.ones(24, np.uint16))},
        {"group_size": ("U8", np.ones(2, np.uint8))},
        {"row_splits": ("I64", np.array([0, 2, 3]))},
        {"row_splits": ("I32", np.array([0, 2, 99], np.int32))},
        {"row_splits": ("I32", np.array([0, -1, 3], np.int32))},
        {"row_splits": ("I32", np.array([0, 3, 3], np.int32))},
        {"row_splits": ("I32", np.array([0, 3], np.int32))},
        {"similarity": ("F32", np.zeros((1, 2, 3), np.float32))},
        {"frame_index": ("I64", np.zeros(2, np.int64))},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    tensors = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(DamageError):
        read_forged(tmp_path, tensors)


def test_tensors_in_another_order_are_refused(tmp_path: Path) -> None:
    """Tokens and group sizes are read at once, and stand behind everything else."""
    group_size = GOOD["group_size"]
    with pytest.raises(DamageError, match="another order"):
        read_forged(tmp_path, {"group_size": group_size, **GOOD})


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        {"id": 3},
        {"key": "other"},
        {"grid": {"rows": 0, "cols": 2}},
        {"grid": {"rows": 2, "cols": 300}},
        {"token_dim": "8"},
        {"dtype": "pickle"},
        {"thresholds": []},
        {"thresholds": [7]},
        {"thresholds": ["x"]},
    ],
)
def test_json_that_does_not_fit_is_refused(tmp_path: Path, meta: Any) -> None:
    with pytest.raises(DamageError):
        read_forged(tmp_path, GOOD, meta)


def test_another_member_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="belongs"):
        read_forged(tmp_path, GOOD, name="../../k.safetensors")
    with pytest.raises(DamageError, match="header"):
        read_forged(tmp_path, b"\xff" * 64)
