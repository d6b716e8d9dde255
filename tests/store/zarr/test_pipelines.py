"""Where a process is set to zarrs, it reads what zarr reads, also in forked workers, and never writes."""

from __future__ import annotations

import importlib.util
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import zarr

from dyntok.records import Sample, VideoRow
from dyntok.store import CompletionRecord, DatasetInfo, StoreRoot, open_shard_reader
from dyntok.store.reader import sample_of
from dyntok.store.zarr.pipelines import for_reading
from tests.support.samples import level_tokens, make_info, make_plan, write_shard

PLAIN = "zarr.core.codec_pipeline.BatchedCodecPipeline"
ZARRS = "zarrs.ZarrsCodecPipeline"
needs_zarrs = pytest.mark.skipif(importlib.util.find_spec("zarrs") is None, reason="zarrs is not installed")


def shard(root: StoreRoot, **options: str) -> dict[str, str]:
    info = make_info(shard_format="zarr", token_dim=64, **options)
    record, _ = write_shard(root, info, make_plan(0, ["a", "b"]), frames=30)
    return {file.path: file.sha256 for file in record.files}


@needs_zarrs
def test_the_bytes_do_not_depend_on_zarrs(tmp_path: Path) -> None:
    plain = shard(StoreRoot.open(str(tmp_path / "plain"), create=True))
    with zarr.config.set({"codec_pipeline.path": ZARRS}):
        assert shard(StoreRoot.open(str(tmp_path / "zarrs"), create=True)) == plain


@needs_zarrs
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8"])
def test_zarrs_reads_what_zarr_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    info = make_info(shard_format="zarr", layout="explicit", dtype=dtype)
    root = StoreRoot.open(str(tmp_path))
    record, samples = write_shard(root, info, make_plan(0, ["a", "b"]), frames=5)
    pipelines = []

    def noted(array: zarr.Array) -> zarr.Array:
        fast = for_reading(array)
        pipelines.append(type(fast.async_array.codec_pipeline).__name__)
        return fast

    monkeypatch.setattr("dyntok.store.zarr.reader.for_reading", noted)
    for row, read, tokens in read_all(root, info, record, zarrs=True):
        assert read.meta.items() >= samples[row.id].meta.items()
        np.testing.assert_array_equal(read.similarity, samples[row.id].similarity)
        for mine, own, given in zip(read.levels, tokens, samples[row.id].levels, strict=True):
            np.testing.assert_array_equal(own, level_tokens(given))
            np.testing.assert_array_equal(mine.group_size, given.group_size)
            np.testing.assert_array_equal(mine.row_splits, given.row_splits)
    assert set(pipelines) == {"ZarrsCodecPipeline"}
    assert zarr.config.get("codec_pipeline.path") == PLAIN
    pipelines.clear()
    read_all(root, info, record, zarrs=False)
    assert set(pipelines) == {"BatchedCodecPipeline"}, "zarrs does not check every chunk's checksum"


def read_all(
    root: StoreRoot, info: DatasetInfo, record: CompletionRecord, *, zarrs: bool
) -> list[tuple[VideoRow, Sample, list[np.ndarray]]]:
    """Each video, and the tokens of its levels."""
    with zarr.config.set({"codec_pipeline.path": ZARRS} if zarrs else {}):
        reader = open_shard_reader(root, info, 0, record)
        samples = [(row, sample_of(reader, row.row)) for row in reader.rows]
        return [(row, sample, [level_tokens(level) for level in sample.levels]) for row, sample in samples]


@needs_zarrs
def test_a_forked_worker_reads_what_its_parent_has_read_from(tmp_path: Path) -> None:
    """A pool of threads, as zarrs has by default, would be dead in the child, which would wait for ever."""
    folder = tmp_path / "numbers"
    numbers = np.arange(64 * 1000, dtype=np.int32)
    zarr.create_array(folder, data=numbers, chunks=(1000,), shards=(16_000,))
    with zarr.config.set({"codec_pipeline.path": ZARRS}):
        array = for_reading(zarr.open_array(folder, mode="r"))
    assert array[:].sum() == numbers.sum()
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=_send_sum, args=(array, theirs))
    child.start()
    try:
        assert mine.poll(30), "the child hangs"
        assert mine.recv() == numbers.sum()
    finally:
        child.kill()
        child.join()


def _send_sum(array: zarr.Array, pipe: Connection) -> None:
    pipe.send(array[:].sum())
