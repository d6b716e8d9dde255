"""What is written is read again: by our readers, and by the plain libraries a user has."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import webdataset
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec

from dyntok.errors import DamageError, StoreError, UsageError, VideoError
from dyntok.records import Grid, Sample
from dyntok.store import DatasetInfo, StoreRoot, VideoHead, as_torch, open_shard_reader, open_shard_writer
from dyntok.store.reader import sample_of
from dyntok.store.samples import StoredLevel
from dyntok.store.tensorfile import Array
from dyntok.store.zarr import format as zarr_layout
from tests.support.samples import (
    ReadVideo,
    file_bytes,
    level_tokens,
    make_info,
    make_plan,
    make_sample,
    naive_groups,
    read_video,
    write_shard,
)

FORMATS = ["webdataset", "zarr"]
LAYOUTS = ["nested", "explicit"]
DTYPES = ["bfloat16", "float16", "float32", "int8"]
ELEMENT_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1}


def assert_same_level(stored: StoredLevel, sample: Sample, number: int) -> None:
    level = sample.levels[number]
    tokens = level_tokens(level)
    assert stored.threshold == level.threshold
    assert stored.tokens.dtype == tokens.dtype
    np.testing.assert_array_equal(stored.tokens, tokens)
    np.testing.assert_array_equal(stored.group_size, level.group_size)
    np.testing.assert_array_equal(stored.row_splits, level.row_splits)
    assert (stored.group_size.dtype, stored.row_splits.dtype) == (np.uint8, np.int32)
    if level.token_scale is not None:
        np.testing.assert_array_equal(stored.token_scale, level.token_scale)
    else:
        assert stored.token_scale is None


def assert_same(video: ReadVideo, sample: Sample) -> None:
    head = video.head
    assert (head.id, head.key, head.grid, head.dtype) == (sample.id, sample.key, sample.grid, sample.dtype)
    np.testing.assert_array_equal(head.similarity, sample.similarity)
    np.testing.assert_array_equal(head.frames.frame_index, sample.frames.frame_index)
    np.testing.assert_array_equal(head.frames.frame_pts, sample.frames.frame_pts)
    assert sample.meta.items() <= head.meta.items()
    assert len(video.levels) == len(sample.levels)
    for number, level in enumerate(video.levels):
        assert_same_level(level, sample, number)


@pytest.mark.parametrize("shard_format", FORMATS)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_writing_then_reading_is_the_identity(shard_format: str, data: st.DataObject) -> None:
    info = make_info(
        shard_format=shard_format,
        layout=data.draw(st.sampled_from(LAYOUTS)),
        dtype=data.draw(st.sampled_from(DTYPES)),
        grid=Grid(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))),
        token_dim=data.draw(st.integers(1, 9)),
    )
    count = data.draw(st.integers(0, 4))
    ids = [f"video {i}" for i in range(count)] or ["only"]
    failed = tuple(video_id for video_id in ids if data.draw(st.booleans()))
    options = {
        "frames": data.draw(st.integers(1, 4)),
        "kind": data.draw(st.sampled_from(["mixed", "all_merge", "none_merge"])),
        "chunk": data.draw(st.integers(1, 50)),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = StoreRoot.open(folder)
        record, samples = write_shard(root, info, make_plan(7, ids), failed=failed, **options)
        reader = open_shard_reader(root, info, 7, record)
        assert [row.id for row in reader.rows] == [video_id for video_id in ids if video_id not in failed]
        for row in reader.rows:
            assert_same(read_video(reader, row.row), samples[row.id])
        for row in record.videos:
            sample = samples.get(row.id)
            expected = (
                {f"{t:.2f}": len(naive_groups(sample.similarity, t)[0]) for t in info.thresholds} if sample else {}
            )
            assert row.tokens == expected


@pytest.fixture(params=list(itertools.product(FORMATS, ["local", "memory"])), ids="-".join)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[StoreRoot, str]]:
    shard_format, kind = request.param
    url = str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}"
    yield StoreRoot.open(url, create=True), shard_format


@pytest.mark.parametrize("layout", LAYOUTS)
def test_some_frames_are_the_rows_of_these_frames(place: tuple[StoreRoot, str], layout: str) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format, layout=layout, dtype="int8")
    record, _ = write_shard(root, info, make_plan(0, ["a", "b"]), frames=6)
    reader = open_shard_reader(root, info, 0, record)
    for frames in ([0], [5], [0, 1, 2, 3, 4, 5], [4, 1, 1, 2], np.array([0, 2, 4])):
        whole, part = read_video(reader, 1), read_video(reader, 1, frames)
        np.testing.assert_array_equal(part.head.similarity, whole.head.similarity[frames])
        np.testing.assert_array_equal(part.head.frames.frame_pts, whole.head.frames.frame_pts[frames])
        for fine, some in zip(whole.levels, part.levels, strict=True):
            edges = fine.row_splits[:: info.grid.rows]
            pick = np.concatenate([np.arange(edges[frame], edges[frame + 1]) for frame in frames])
            np.testing.assert_array_equal(some.tokens, fine.tokens[pick])
            np.testing.assert_array_equal(some.group_size, fine.group_size[pick])
            np.testing.assert_array_equal(some.token_scale, fine.token_scale[pick])
            assert some.row_splits[-1] == len(pick) and len(some.row_splits) == len(frames) * info.grid.rows + 1


@pytest.mark.parametrize("frames", [[], [6], [-1], [0.5], [[0]]])
def test_frames_that_are_not_there_are_an_error(place: tuple[StoreRoot, str], frames: list[int]) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format)
    record, _ = write_shard(root, info, make_plan(0, ["a"]), frames=6)
    with pytest.raises(UsageError, match="'a'"):
        read_video(open_shard_reader(root, info, 0, record), 0, frames)


def test_levels_and_rows_that_are_not_there_are_an_error(place: tuple[StoreRoot, str]) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format)
    record, _ = write_shard(root, info, make_plan(0, ["a"]))
    reader = open_shard_reader(root, info, 0, record)
    for call in (lambda: reader.head(1), lambda: reader.head(-1), lambda: reader.level(0, 1)):
        with pytest.raises(UsageError, match="holds"):
            call()
    with pytest.raises(UsageError, match="explicit"):
        reader.row_marker_index(0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_video_that_cannot_be_read_does_not_disturb_the_one_before(place: tuple[StoreRoot, str], layout: str) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format, layout=layout)
    record, samples = write_shard(root, info, make_plan(0, ["a", "b"]))
    other = replace(record.videos[1], frames=record.videos[1].frames + 1)
    reader = open_shard_reader(root, info, 0, replace(record, videos=(record.videos[0], other)))
    for _ in range(2):
        assert_same(read_video(reader, 0), samples["a"])
        with pytest.raises(DamageError):
            reader.head(1)


def test_a_sample_can_be_copied_in_pieces(place: tuple[StoreRoot, str]) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format, layout="explicit")
    record, samples = write_shard(root, info, make_plan(0, ["a", "b"]))
    reader = open_shard_reader(root, info, 0, record)
    copy = sample_of(reader, 1)
    for level, original in zip(copy.levels, samples["b"].levels, strict=True):
        np.testing.assert_array_equal(level_tokens(level), level_tokens(original))
    chunks = list(reader.token_chunks(1, chunk_rows=5))
    assert {len(chunk) for chunk in chunks[:-1]} == {5}
    np.testing.assert_array_equal(np.concatenate(chunks), level_tokens(samples["b"].levels[0]))


# plain libraries ---------------------------------------------------------------------------------------------


def check_tensors(tensors: dict[str, Array], sample: Sample, number: int, markers: bool) -> None:
    level = sample.levels[number]
    np.testing.assert_array_equal(tensors["group_size"], level.group_size)
    np.testing.assert_array_equal(tensors["row_splits"], level.row_splits)
    assert ("row_marker_index" in tensors) == markers
    if markers:
        rows = np.arange(len(level.row_splits) - 1)
        np.testing.assert_array_equal(tensors["row_marker_index"], level.row_splits[rows + 1] + rows)
    if number == 0:
        np.testing.assert_array_equal(tensors["similarity"], sample.similarity)
        np.testing.assert_array_equal(tensors["frame_index"], sample.frames.frame_index)
        np.testing.assert_array_equal(tensors["frame_pts"], sample.frames.frame_pts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tarfile_and_safetensors_read_a_shard(tmp_path: Path, layout: str, dtype: str) -> None:
    info = make_info(layout=layout, dtype=dtype)
    root = StoreRoot.open(str(tmp_path))
    record, samples = write_shard(root, info, make_plan(0, ["a", "b"]))
    suffixes = ["safetensors", "json"]
    if layout == "explicit":
        suffixes += ["t050.safetensors", "t040.safetensors"]
    with tarfile.open(tmp_path / "shards/shard-000000.tar") as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == [f"{s.key}.{suffix}" for s in samples.values() for suffix in suffixes]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
        for row in record.videos:
            sample = samples[row.id]
            assert (members[row.row * len(suffixes)].offset_data, members[row.row * len(suffixes)].size) == (
                row.offset,
                row.nbytes,
            )
            meta = json.loads(archive.extractfile(f"{row.key}.json").read())
            assert meta["id"] == row.id and meta["extra"] == {"é": 1}
            names = ["safetensors", *suffixes[2:]]
            for number, name in enumerate(names):
                data = archive.extractfile(f"{row.key}.{name}").read()
                loaded = safetensors.torch.load(data)
                expected = as_torch(level_tokens(sample.levels[number]), dtype)
                assert loaded["tokens"].dtype == expected.dtype == getattr(torch, dtype)
                assert torch.equal(loaded["tokens"], expected)
                if dtype != "bfloat16":
                    check_tensors(safetensors.numpy.load(data), sample, number, layout == "explicit")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_lie_in_the_order_of_the_format(tmp_path: Path, layout: str, dtype: str) -> None:
    """As docs/format.md lists them, by safetensors' own parser; each aligned to its elements, within the tar too."""
    info = make_info(layout=layout, dtype=dtype)
    write_shard(StoreRoot.open(str(tmp_path)), info, make_plan(0, ["a", "b"]), seeds={"a": 3, "b": 8})
    markers = ["row_marker_index"] * (layout == "explicit")
    back = ["row_splits", *["token_scale"] * (dtype == "int8"), "tokens", "group_size"]
    with tarfile.open(tmp_path / "shards/shard-000000.tar") as archive:
        members = [member for member in archive if member.name.endswith(".safetensors")]
        assert len(members) == (6 if layout == "explicit" else 2)
        for member in members:
            data = archive.extractfile(member).read()
            (tmp_path / "member").write_bytes(data)
            with safetensors.safe_open(tmp_path / "member", "pt") as file:
                is_main = member.name.count(".") == 1
                front = ["frame_pts", "frame_index", *markers, "similarity"] if is_main else markers
                assert file.offset_keys() == front + back
            header = int.from_bytes(data[:8], "little")
            assert (8 + header) % 64 == 0
            for name, spec in json.loads(data[8 : 8 + header]).items():
                if name != "__metadata__":
                    begin = member.offset_data + 8 + header + spec["data_offsets"][0]
                    assert begin % ELEMENT_BYTES[spec["dtype"]] == 0


# webdataset leaves the shard's file to the garbage collector.
LEAVES_FILES_OPEN = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")


@LEAVES_FILES_OPEN
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_webdataset_reads_a_shard(tmp_path: Path, layout: str) -> None:
    info = make_info(layout=layout)
    root = StoreRoot.open(str(tmp_path))
    _, samples = write_shard(root, info, make_plan(0, ["a", "b.mp4", "c"]), failed=("c",))
    dataset = webdataset.WebDataset(str(tmp_path / "shards/shard-000000.tar"), shardshuffle=False)
    found = {sample["__key__"]: sample for sample in dataset}
    assert list(found) == [sample.key for sample in samples.values()]
    for sample in samples.values():
        members = found[sample.key]
        levels = {name for name in members if name.endswith("safetensors")}
        assert levels == {"safetensors"} | ({"t040.safetensors", "t050.safetensors"} if layout == "explicit" else set())
        tokens = safetensors.torch.load(members["safetensors"])["tokens"]
        assert torch.equal(tokens, as_torch(level_tokens(sample.levels[0]), "bfloat16"))


@LEAVES_FILES_OPEN
def test_a_shard_without_videos_is_an_empty_archive(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path))
    record, _ = write_shard(root, make_info(), make_plan(0, ["a"]), failed=("a",))
    with tarfile.open(tmp_path / record.files[0].path) as archive:
        assert archive.getmembers() == []
    urls = [str(tmp_path / "shards/shard-000000.tar")]
    assert list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)) == []
    assert len(open_shard_reader(root, make_info(), 0, record)) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_plain_zarr_reads_a_shard(tmp_path: Path, layout: str, dtype: str) -> None:
    info = make_info(shard_format="zarr", layout=layout, dtype=dtype)
    root = StoreRoot.open(str(tmp_path))
    record, samples = write_shard(root, info, make_plan(0, ["a", "b", "c"]), failed=("b",))
    group = zarr.open(tmp_path / "shards/shard-000000.zarr", mode="r")
    assert group["tokens"].attrs["logical_dtype"] == dtype
    assert all("crc32c" in json.dumps(array.metadata.to_dict(), default=str).lower() for _, array in group.arrays())
    for row in record.done:
        sample = samples[row.id]
        first, last = group["frame_splits"][row.row : row.row + 2]
        np.testing.assert_array_equal(group["similarity"][first:last], sample.similarity)
        np.testing.assert_array_equal(group["frame_index"][first:last], sample.frames.frame_index)
        np.testing.assert_array_equal(group["frame_pts"][first:last], sample.frames.frame_pts)
        begin, end = group["meta_splits"][row.row : row.row + 2]
        assert json.loads(group["meta_json"][begin:end].tobytes())["id"] == row.id
        for number, level in enumerate(sample.levels):
            where = group[["", "t050", "t040"][number]] if number else group
            begin, end = where["video_splits"][row.row : row.row + 2]
            np.testing.assert_array_equal(where["tokens"][begin:end], level_tokens(level))
            np.testing.assert_array_equal(where["group_size"][begin:end], level.group_size)
            rows = slice(first * info.grid.rows, last * info.grid.rows + 1)
            np.testing.assert_array_equal(where["row_splits"][rows] - begin, level.row_splits)
            if level.token_scale is not None:
                np.testing.assert_array_equal(where["token_scale"][begin:end], level.token_scale)
    assert record.done[1].offset == record.done[0].tokens["0.60"]


# memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_of_a_local_tar_are_views_of_the_map(tmp_path: Path, dtype: str) -> None:
    info = make_info(dtype=dtype)
    root = StoreRoot.open(str(tmp_path))
    record, _ = write_shard(root, info, make_plan(0, ["a", "b"]), frames=4)
    reader = open_shard_reader(root, info, 0, record)
    view = np.frombuffer(reader._source._view, np.uint8)
    low, high = view.ctypes.data, view.ctypes.data + view.nbytes
    video = read_video(reader, 1)
    for array in (
        video.levels[0].tokens,
        video.levels[0].group_size,
        video.levels[0].row_splits,
        video.head.similarity,
        video.head.frames.frame_pts,
        read_video(reader, 1, [1, 2]).levels[0].tokens,
    ):
        assert low <= array.ctypes.data and array.ctypes.data + array.nbytes <= high
        assert array.flags.aligned and not array.flags.writeable
    tensor = as_torch(video.levels[0].tokens, dtype)
    assert tensor.dtype == getattr(torch, dtype) and low <= tensor.data_ptr() < high
    before = (tmp_path / record.files[0].path).read_bytes()
    tensor.zero_()
    assert (tmp_path / record.files[0].path).read_bytes() == before


def test_data_start_at_multiples_of_64_in_the_file(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path))
    record, _ = write_shard(root, make_info(), make_plan(0, ["a", "b"]))
    data = (tmp_path / record.files[0].path).read_bytes()
    for row in record.videos:
        length = int.from_bytes(data[row.offset : row.offset + 8], "little")
        assert (row.offset + 8 + length) % 64 == 0


class CountingRoot(StoreRoot):
    """Counts what is read of an object store."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        self.bytes_read = getattr(self, "bytes_read", 0) + length
        return super().read_range(path, start, length)


def test_a_frame_of_a_remote_tar_costs_its_own_bytes() -> None:
    info = make_info(token_dim=2048, dtype="float32")
    url = f"memory://{uuid.uuid4().hex}"
    record, _ = write_shard(StoreRoot.open(url), info, make_plan(0, ["a"]), frames=40)
    root = CountingRoot.open(url)
    reader = open_shard_reader(root, info, 0, record)
    head = reader.head(0)
    assert root.bytes_read < 80_000 < record.videos[0].nbytes / 10
    root.bytes_read = 0
    level = reader.level(0, frames=[17])
    assert root.bytes_read == level.tokens.nbytes
    assert isinstance(head, VideoHead)


# failure -----------------------------------------------------------------------------------------------------


class BrokenSourceError(Exception):
    """Raised by a source of tokens half-way."""


def broken_chunks(sample: Sample) -> Iterator[Array]:
    yield next(iter(sample.levels[0].tokens))
    raise BrokenSourceError


def spoiled(sample: Sample, **changes: object) -> Sample:
    return replace(sample, levels=(replace(sample.levels[0], **changes), *sample.levels[1:]))


@pytest.mark.parametrize("cname", ["zstd", "lz4"])
def test_zarr_chunks_in_other_settings_of_blosc_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cname: Literal["zstd", "lz4"]
) -> None:
    """Stores outlive the choice of a compressor; zstd 3 in Blosc's own blocks was the first."""
    other = (BloscCodec(cname=cname, clevel=3, shuffle="bitshuffle", typesize=2), Crc32cCodec())
    monkeypatch.setattr("dyntok.store.zarr.writer.codecs", lambda spec: other)
    info = make_info(shard_format="zarr")
    root = StoreRoot.open(str(tmp_path))
    record, samples = write_shard(root, info, make_plan(0, ["a", "b"]))
    array = zarr.open_array(tmp_path / "shards/shard-000000.zarr/tokens", mode="r")
    assert array.compressors == other
    reader = open_shard_reader(root, info, 0, record)
    for row in reader.rows:
        assert_same(read_video(reader, row.row), samples[row.id])


def test_zarr_chunks_are_compressed_as_one_block(tmp_path: Path) -> None:
    """Bytes 8 to 12 of a Blosc buffer are its block's size, bytes 4 to 8 that of what it holds."""
    info = make_info(shard_format="zarr", token_dim=1024)
    root = StoreRoot.open(str(tmp_path))
    write_shard(root, info, make_plan(0, ["a"]), frames=40)
    data = (tmp_path / "shards/shard-000000.zarr/tokens/c/0/0").read_bytes()
    held, block = struct.unpack_from("<II", data, 4)
    assert held == block == zarr_layout.ColumnSpec("tokens", "uint16", (1024,), ("", "")).chunk_rows * 2048


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zarr chunks of a few rows and files of two chunks, so that small arrays have many of both."""
    monkeypatch.setattr(zarr_layout, "_CHUNK_BYTES", 128)
    monkeypatch.setattr(zarr_layout, "_CHUNKS_PER_SHARD", 2)


@pytest.mark.usefixtures("small_chunks")
def test_zarr_arrays_of_many_files(tmp_path: Path) -> None:
    info = make_info(shard_format="zarr", layout="explicit")
    root = StoreRoot.open(str(tmp_path))
    record, samples = write_shard(root, info, make_plan(0, ["a", "b", "c"]), frames=5)
    assert sum("/tokens/c/" in file.path and "/t0" not in file.path for file in record.files) > 5
    reader = open_shard_reader(root, info, 0, record)
    for row in reader.rows:
        assert_same(read_video(reader, row.row), samples[row.id])
    edges = samples["c"].levels[0].row_splits[:: info.grid.rows]
    tokens = level_tokens(samples["c"].levels[0])
    np.testing.assert_array_equal(reader.level(2, frames=[3]).tokens, tokens[edges[3] : edges[4]])


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.usefixtures("small_chunks")
def test_a_failed_video_leaves_no_trace(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format, dtype="float32")

    def write(folder: str, detour: bool) -> list[tuple[str, bytes]]:
        root = StoreRoot.open(str(tmp_path / folder), create=True)
        writer = open_shard_writer(root, info, 0)
        for position in range(2):
            sample = make_sample(info, f"v{position}", frames=3, seed=position)
            if detour:
                bad = make_sample(info, "bad", frames=12, seed=99, kind="none_merge")
                size = writer.size_bytes
                with pytest.raises(BrokenSourceError):
                    writer.add(spoiled(bad, tokens=broken_chunks(bad)), position=9, source="x")
                tokens = [np.array(chunk) for chunk in bad.levels[0].tokens]
                tokens[-1][-1, -1] = np.nan
                with pytest.raises(VideoError, match="NaN") as caught:
                    writer.add(spoiled(bad, tokens=tokens), position=9, source="x")
                assert caught.value.code == "non_finite"
                assert writer.size_bytes == size
            writer.add(sample, position=position, source="x")
        content = writer.finish()
        files = [(file.path, file.sha256) for file in content.files]
        writer.abort()
        assert not list(root.scratch_dir().iterdir())
        return files

    assert write("straight", False) == write("detour", True)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_digests_are_those_of_large_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str
) -> None:
    """Large enough to be hashed while they are written, also where some are written a second time."""
    monkeypatch.setattr(zarr_layout, "_CHUNKS_PER_SHARD", 1)
    info = make_info(shard_format=shard_format, token_dim=1024)
    root = StoreRoot.open(str(tmp_path))
    writer = open_shard_writer(root, info, 0)
    writer.add(make_sample(info, "a", frames=60, chunk=100), position=0, source="x")
    bad = make_sample(info, "bad", frames=100, seed=1, chunk=900)
    with pytest.raises(BrokenSourceError):
        writer.add(spoiled(bad, tokens=broken_chunks(bad)), position=1, source="x")
    writer.add(make_sample(info, "b", frames=60, seed=2, chunk=100), position=1, source="x")
    content = writer.finish()
    assert max(file.bytes for file in content.files) > 2**18
    for file in content.files:
        inside = file.path.removeprefix("shards/shard-000000.zarr/")
        data = (content.temporary / inside if shard_format == "zarr" else content.temporary).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    writer.abort()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tokens_that_are_not_finite_are_refused(tmp_path: Path, dtype: str, value: float) -> None:
    info = make_info(dtype=dtype)
    sample = make_sample(info, "a")
    tokens = level_tokens(sample.levels[0]).copy()
    bits = np.array([value], np.float32)
    tokens[3, 2] = bits.view(np.uint32)[0] >> 16 if dtype == "bfloat16" else value
    writer = open_shard_writer(StoreRoot.open(str(tmp_path)), info, 0)
    with pytest.raises(VideoError, match="infinity"):
        writer.add(spoiled(sample, tokens=[tokens]), position=0, source="x")
    writer.abort()


def contradictions(info: DatasetInfo) -> Iterator[tuple[str, Sample]]:
    sample = make_sample(info, "a", frames=3)
    level = sample.levels[0]
    tokens = level_tokens(level)
    similarity = sample.similarity.copy()
    similarity[0, 0, 0] = 0.0
    yield "column 0", replace(sample, similarity=similarity)
    similarity = sample.similarity.copy()
    similarity[0, 0, 1] = np.nan
    yield "outside", replace(sample, similarity=similarity)
    yield "similarity map", replace(sample, similarity=sample.similarity[:2])
    yield "similarity map", replace(sample, grid=Grid(5, 3))
    yield "tokens", replace(sample, token_dim=9)
    yield "tokens", replace(sample, dtype="float32")
    yield "levels", replace(sample, levels=sample.levels * 2)
    yield "levels", spoiled(sample, threshold=0.5)
    yield "gives", spoiled(sample, token_count=level.token_count + 1)
    yield "group_size", spoiled(sample, group_size=level.group_size[::-1].copy())
    yield "group_size", spoiled(sample, group_size=level.group_size.astype(np.int64))
    yield "row_splits", spoiled(sample, row_splits=level.row_splits + 1)
    yield "token_scale", spoiled(sample, token_scale=np.ones(level.token_count, np.float32))
    yield "announced", spoiled(sample, tokens=[tokens[:-1]])
    yield "announced", spoiled(sample, tokens=[tokens, tokens])
    yield "chunk", spoiled(sample, tokens=[tokens[:, :-1]])
    yield "chunk", spoiled(sample, tokens=[tokens.astype(np.float32)])
    yield "metadata", replace(sample, meta={"id": "another"})
    yield "JSON", replace(sample, meta={"x": float("nan")})
    yield "JSON", replace(sample, meta={"x": object()})
    yield "JSON", replace(sample, meta={"x": "\ud800"})


@pytest.mark.parametrize("shard_format", FORMATS)
def test_samples_that_contradict_themselves_are_refused(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    writer = open_shard_writer(StoreRoot.open(str(tmp_path)), info, 0)
    for message, sample in contradictions(info):
        with pytest.raises((StoreError, ValueError), match=message):
            writer.add(sample, position=0, source="x")
    writer.add(make_sample(info, "a"), position=0, source="x")
    with pytest.raises(StoreError, match="already holds"):
        writer.add(make_sample(info, "a"), position=1, source="x")
    writer.abort()
    writer.abort()


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_samples_give_the_same_bytes(tmp_path: Path, shard_format: str, layout: str) -> None:
    info = make_info(shard_format=shard_format, layout=layout, dtype="int8")
    stores = []
    for name, chunk in (("one", 7), ("two", 3)):
        root = StoreRoot.open(str(tmp_path / name), create=True)
        write_shard(root, info, make_plan(0, ["a", "b", "c"]), failed=("b",), chunk=chunk)
        stores.append(dict(file_bytes(root)))
    assert stores[0] == stores[1]


def test_a_missing_or_short_data_file_is_damage(place: tuple[StoreRoot, str]) -> None:
    root, shard_format = place
    info = make_info(shard_format=shard_format)
    record, _ = write_shard(root, info, make_plan(0, ["a"]))
    path = record.data_files[-1].path
    root.write_atomic(path, root.read_bytes(path)[:-1])
    with pytest.raises(DamageError, match=f"{record.data_files[-1].bytes} bytes were written"):
        open_shard_reader(root, info, 0, record)
    root.remove(path)
    with pytest.raises(StoreError, match=path.rsplit("/", 1)[-1]):
        open_shard_reader(root, info, 0, record)
