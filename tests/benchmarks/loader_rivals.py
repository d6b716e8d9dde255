"""Ways to store token tensors and to load them again, one class each.

A loader writes `[N, D]` bfloat16 tensors into a folder, and gives a dataset for `torch.utils.data.DataLoader` and what
makes a tensor of its items. Each is used as its documentation says, uncompressed, in shards of about the same size.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import mmap
import multiprocessing
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import Dataset

import dyntok

SHARD_BYTES = 2**28
SHARD_SAMPLES = 6


class Loader(Protocol):
    """`package` is what pip installs, `module` what is imported; `shuffles` says that the dataset does so itself."""

    name: str
    package: str
    module: str
    shuffles: bool

    def write(self, folder: Path, samples: RawMap) -> None: ...

    def dataset(self, folder: Path) -> Any: ...

    def tensor(self, item: Any) -> Tensor: ...


def installed(loader: Loader) -> bool:
    return importlib.util.find_spec(loader.module) is not None


class RawMap(Dataset[Tensor]):
    """The samples one after the other in a file that is mapped: what there is to reach."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shapes = np.load(path.with_suffix(".npy"))
        self._shapes = [(int(rows), int(dim)) for rows, dim in shapes]
        self._begins = [0, *np.cumsum(shapes.prod(1) * 2).tolist()]
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, number: int) -> Tensor:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        rows, dim = self._shapes[number]
        begin = self._begins[number]
        flat = torch.frombuffer(self._map, dtype=torch.bfloat16, count=rows * dim, offset=begin)
        return flat.view(rows, dim)

    @staticmethod
    def create(path: Path, samples: list[Tensor]) -> RawMap:
        with path.open("wb") as file:
            for sample in samples:
                file.write(sample.contiguous().view(torch.uint8).numpy().data)
        np.save(path.with_suffix(".npy"), np.array([sample.shape for sample in samples]))
        return RawMap(path)


class Raw:
    name, package, module, shuffles = "raw mmap copy", "torch", "torch", False

    def write(self, folder: Path, samples: RawMap) -> None:
        """The others are written from it; it is there already."""

    def dataset(self, folder: Path) -> Dataset[Tensor]:
        return RawMap(folder.parent / "raw.bin")

    def tensor(self, item: Tensor) -> Tensor:
        return item


class StoreDataset(Dataset[Tensor]):
    def __init__(self, url: str, threshold: float | None) -> None:
        self._store, self._threshold = dyntok.open(url), threshold
        self._ids = self._store.ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, number: int) -> Tensor:
        return self._store[self._ids[number]].at(self._threshold).tokens


class Dyntok:
    """A store, at one threshold."""

    package, module, shuffles = "dyntok", "dyntok", False

    def __init__(self, name: str, threshold: float | None) -> None:
        self.name, self._threshold = name, threshold

    def write(self, folder: Path, samples: RawMap) -> None:
        """The samples come from it; it is there already."""

    def dataset(self, folder: Path) -> Dataset[Tensor]:
        return StoreDataset(str(folder.parent / "store"), self._threshold)

    def tensor(self, item: Tensor) -> Tensor:
        return item


class DyntokMembers:
    """A store's shards as plain WebDataset yields them, for `dyntok.decode_sample`."""

    name, package, module, shuffles = "dyntok.decode_sample in webdataset", "webdataset", "webdataset", True

    def write(self, folder: Path, samples: RawMap) -> None:
        """The samples come from it; it is there already."""

    def dataset(self, folder: Path) -> Any:
        return shuffled_tars(folder.parent / "store" / "shards")

    def tensor(self, item: dict[str, Any]) -> Tensor:
        tokens: Tensor = dyntok.decode_sample(item)["tokens"]
        return tokens


class WebDatasetMembers:
    """Plain WebDataset, each tensor a member that is decoded from bytes."""

    package, module, shuffles = "webdataset", "webdataset", True

    def __init__(self, suffix: str, encode: Callable[[Tensor], bytes], decode: Callable[[bytes], Tensor]) -> None:
        self.name = f"webdataset, .{suffix} members"
        self._suffix, self._encode, self._decode = suffix, encode, decode

    def write(self, folder: Path, samples: RawMap) -> None:
        folder.mkdir()
        for first in range(0, len(samples), SHARD_SAMPLES):
            with webdataset.TarWriter(str(folder / f"{first:06}.tar")) as tar:
                for number in range(first, min(first + SHARD_SAMPLES, len(samples))):
                    tar.write({"__key__": f"{number:06}", self._suffix: self._encode(samples[number])})

    def dataset(self, folder: Path) -> Any:
        return shuffled_tars(folder)

    def tensor(self, item: dict[str, Any]) -> Tensor:
        return self._decode(item[self._suffix])


def shuffled_tars(folder: Path) -> Any:
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    return webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(SHARD_SAMPLES)


class Mosaic:
    """MDS shards."""

    name, package, module, shuffles = "mosaicml-streaming", "mosaicml-streaming", "streaming", True

    def write(self, folder: Path, samples: RawMap) -> None:
        writer = _streaming().MDSWriter
        columns = {"tokens": "ndarray:uint16"}
        with writer(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as shards:
            for number in range(len(samples)):
                shards.write({"tokens": samples[number].view(torch.uint16).numpy()})

    def dataset(self, folder: Path) -> Any:
        return _streaming().StreamingDataset(local=str(folder), shuffle=True, batch_size=1)

    def tensor(self, item: dict[str, Any]) -> Tensor:
        return torch.from_numpy(item["tokens"]).view(torch.bfloat16)


def _streaming() -> Any:
    # Its datasets of pictures import torchvision, which fails beside a torch of another build. Nothing here needs them.
    sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
    return importlib.import_module("streaming")


class LitData:
    """Chunks of serialised tensors, as uint16 because it has no bfloat16. It hands out views of the mapped chunk."""

    name, package, module, shuffles = "litdata", "litdata", "litdata", True

    def write(self, folder: Path, samples: RawMap) -> None:
        importlib.import_module("litdata").optimize(
            fn=partial(_bits, samples.path),
            inputs=list(range(len(samples))),
            output_dir=str(folder),
            chunk_bytes=SHARD_BYTES,
            num_workers=1,
            # Its own choice would become the whole process's.
            start_method=multiprocessing.get_start_method(),
        )

    def dataset(self, folder: Path) -> Any:
        return importlib.import_module("litdata").StreamingDataset(str(folder), shuffle=True)

    def tensor(self, item: Tensor) -> Tensor:
        return item.view(torch.bfloat16)


def _bits(path: Path, number: int) -> Tensor:
    return RawMap(path)[number].view(torch.uint16)


def _numpy_bytes(tokens: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, tokens.view(torch.uint16).numpy())
    return file.getvalue()


def _from_numpy_bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.load(io.BytesIO(data))).view(torch.bfloat16)


def _torch_bytes(tokens: Tensor) -> bytes:
    file = io.BytesIO()
    torch.save(tokens.clone(), file)
    return file.getvalue()


def _from_torch_bytes(data: bytes) -> Tensor:
    tokens: Tensor = torch.load(io.BytesIO(data), weights_only=True)
    return tokens


LOADERS: tuple[Loader, ...] = (
    Raw(),
    Dyntok("dyntok, as stored", None),
    Dyntok("dyntok, merged to 0.5", 0.5),
    Dyntok("dyntok, merged to 0.4", 0.4),
    DyntokMembers(),
    WebDatasetMembers("npy", _numpy_bytes, _from_numpy_bytes),
    WebDatasetMembers("pth", _torch_bytes, _from_torch_bytes),
    Mosaic(),
    LitData(),
)
