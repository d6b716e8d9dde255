"""Fingerprints depend on content and size, and on nothing else."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, access, fingerprint, fingerprint_like, list_inputs
from dyntok.records import SourceRef

EDGE = 64 * 1024


class ObjectStore(MemoryFileSystem):  # type: ignore[misc]
    """An fsspec file system in memory that answers with etags and remembers listings, as object stores do."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        info: dict[str, Any] = super().info(path, **kwargs)
        if info["type"] == "file":
            info["ETag"] = f'"{hashlib.md5(self.cat_file(path)).hexdigest()}"'
        return info

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            names = [info["name"] for info in super().ls(path, detail=True)]
            self.dircache[path] = [self.info(name) for name in names]
        infos: list[dict[str, Any]] = self.dircache[path]
        return infos if detail else [info["name"] for info in infos]

    def invalidate_cache(self, path: str | None = None) -> None:
        if path is None:
            self.dircache.clear()
        else:
            self.dircache.pop(self._strip_protocol(path), None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("s3://", "memory://", 1))
        return stripped


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "s3", ObjectStore)
    yield fsspec.filesystem("s3")
    ObjectStore.store.clear()
    ObjectStore.clear_instance_cache()


def item_at(path: object, offset: int | None = None, length: int | None = None) -> CorpusItem:
    return CorpusItem.looked_at("x", "x", SourceRef(str(path), offset, length))


def of(path: Path, *, full: bool = False) -> str | None:
    return fingerprint(item_at(path), full=full)


def test_definition_on_a_real_clip(bikes: Path) -> None:
    data = bikes.read_bytes()
    short = hashlib.sha256(data[:EDGE] + data[-EDGE:]).hexdigest()[:32]
    assert of(bikes) == f"ht1:{len(data)}:{short}"
    assert len(data) > 2 * EDGE
    assert of(bikes, full=True) == f"full:{len(data)}:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("size", [0, EDGE + 1, 2 * EDGE])
def test_short_files_are_read_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert of(tmp_path / "f") == f"ht1:{size}:{hashlib.sha256(data).hexdigest()[:32]}"


@settings(max_examples=50, deadline=None)
@given(size=st.sampled_from([0, 1, EDGE, 2 * EDGE - 1, 2 * EDGE, 2 * EDGE + 1, 3 * EDGE]), data=st.data())
def test_a_changed_byte_shows_where_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fp") / "f"
    content = bytearray(os.urandom(size))
    path.write_bytes(content)
    cheap, full = of(path), of(path, full=True)
    if size == 0:
        return
    at = data.draw(st.integers(0, size - 1))
    content[at] ^= 1
    path.write_bytes(content)
    in_the_middle = EDGE <= at < size - EDGE
    assert (of(path) == cheap) == in_the_middle
    assert of(path, full=True) != full


def test_modification_time_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    before = of(path)
    os.utime(path, (1, 1))
    assert of(path) == before


def test_longer_file_with_the_same_edges(tmp_path: Path) -> None:
    prints = set()
    for size in (3, 4, 5):
        (tmp_path / "f").write_bytes(bytes(size * EDGE))
        prints.add(of(tmp_path / "f"))
    assert len(prints) == 3


def test_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "gone"):
        assert of(path) is None
    (tmp_path / "short").write_bytes(b"123")
    assert fingerprint(CorpusItem("x", "x", SourceRef(str(tmp_path / "short")), 10)) is None
    assert fingerprint(CorpusItem("x", "x", SourceRef(str(tmp_path / "short"), 2, 5), 5)) is None
    assert fingerprint(item_at(tmp_path / "short", 2, 5)) is None
    assert fingerprint_like(SourceRef(str(tmp_path / "short"), 2, 5), "ht1:5:00") is None
    assert fingerprint(CorpusItem("x", "x", SourceRef(str(tmp_path / "pipe")), 10)) is None
    assert fingerprint(CorpusItem("x", "x", SourceRef(str(tmp_path / "short")), None)) is None


def test_tar_window(tmp_path: Path) -> None:
    data = os.urandom(4 * EDGE)
    (tmp_path / "whole").write_bytes(data[1000:-1000])
    (tmp_path / "tar").write_bytes(data)
    window = item_at(tmp_path / "tar", 1000, len(data) - 2000)
    assert fingerprint(window) == of(tmp_path / "whole")
    assert fingerprint(window, full=True) == of(tmp_path / "whole", full=True)


def test_memory_files_are_read() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("memory://fp/a.mp4", b"abc")
    try:
        expected = f"ht1:3:{hashlib.sha256(b'abc').hexdigest()[:32]}"
        assert fingerprint(item_at("memory://fp/a.mp4")) == expected
    finally:
        fs.rm("/fp", recursive=True)


def test_etag_of_an_object_store(object_store: ObjectStore) -> None:
    object_store.pipe("s3://bucket/a.mp4", b"abc")
    (item,) = list_inputs(["s3://bucket"])
    md5 = hashlib.md5(b"abc").hexdigest()
    assert item.etag == md5
    assert fingerprint(item) == fingerprint(item_at(item.ref.path)) == f"etag:3:{md5}"
    assert fingerprint(item, full=True) == f"full:3:{hashlib.sha256(b'abc').hexdigest()}"
    for what in (item, item.ref):
        assert fingerprint_like(what, f"etag:3:{md5}") == f"etag:3:{md5}"
    assert fingerprint_like(item, "ht1:3:00") == f"ht1:3:{hashlib.sha256(b'abc').hexdigest()[:32]}"


def test_listings_are_fresh(object_store: ObjectStore) -> None:
    object_store.pipe("s3://bucket/sub/a.mp4", b"abc")
    ours = access.remote("s3://bucket")[0]._fs
    ours.ls("s3://bucket/sub")  # something else in this process listed it
    object_store.pipe("s3://bucket/sub/b.mp4", b"abc")
    for _ in range(2):
        assert [item.id for item in list_inputs(["s3://bucket"])] == ["sub/a.mp4", "sub/b.mp4"]
    assert not ours.dircache


def test_like_keeps_the_scheme_and_reads_nothing_for_another_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    ref = SourceRef(str(path))
    for planned in (of(path), of(path, full=True)):
        assert planned and fingerprint_like(ref, planned) == planned
    assert fingerprint_like(ref, "ht1:4:00") == "size:3"
    assert fingerprint_like(ref, "etag:3:00") == of(path)
    assert fingerprint_like(SourceRef(str(tmp_path / "gone")), "ht1:3:00") is None
