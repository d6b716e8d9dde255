"""Shards are readable without dyntok: plain webdataset, tarfile, safetensors and zarr."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import dyntok
from dyntok.run import encode
from tests.support.runs import demo_config


@pytest.fixture(scope="module")
def stores(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("readers")
    for name in ("webdataset", "zarr"):
        encode([str(clip_folder)], str(folder / name), demo_config(format=name))
    return {name: folder / name for name in ("webdataset", "zarr")}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_webdataset_with_decode_sample(stores: dict[str, Path]) -> None:
    import webdataset

    store = dyntok.open(stores["webdataset"])
    url = str(stores["webdataset"] / "shards" / "shard-000000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False).map(dyntok.decode_sample))
    assert [sample["id"] for sample in samples] == store.ids
    for sample in samples:
        expected = store[sample["id"]].at()
        assert torch.equal(sample["tokens"], expected.tokens)
        assert torch.equal(sample["similarity"], expected.similarity)
        assert sample["group_size"].tolist() == expected.group_size.tolist()
        assert sample["row_splits"].tolist() == expected.row_splits.tolist()
        assert torch.equal(sample["frame_pts"], expected.frame_pts)


def test_tarfile_and_safetensors(stores: dict[str, Path]) -> None:
    from safetensors.torch import load

    store = dyntok.open(stores["webdataset"])
    with tarfile.open(stores["webdataset"] / "shards" / "shard-000000.tar") as tar:
        names = tar.getnames()
        content = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert len(names) == 8
    for name in names[::2]:
        tensors = load(content[name])
        meta = json.loads(content[name.replace(".safetensors", ".json")])
        expected = store[meta["id"]].at()
        assert tensors["tokens"].dtype == torch.bfloat16
        assert torch.equal(tensors["tokens"], expected.tokens)


def test_zarr(stores: dict[str, Path]) -> None:
    import zarr

    store = dyntok.open(stores["zarr"])
    group = zarr.open_group(str(stores["zarr"] / "shards" / "shard-000000.zarr"), mode="r")
    tokens, splits = group["tokens"], group["video_splits"][:]
    assert tokens.attrs["logical_dtype"] == "bfloat16"
    for number, video_id in enumerate(store.ids):
        bits = np.asarray(tokens[int(splits[number]) : int(splits[number + 1])])
        assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), store[video_id].at().tokens)
