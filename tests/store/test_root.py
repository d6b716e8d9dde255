"""Roots: local folders and object stores behave alike; errors name the file and the remedy."""

from __future__ import annotations

import errno
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyntok.errors import StoreError
from dyntok.store import StoreRoot
from dyntok.store.root import explain_os_error


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRoot]:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    yield StoreRoot.open(url, create=True)


def test_write_then_read(root: StoreRoot) -> None:
    root.write_atomic("a/b.json", b"0123456789")
    root.write_atomic("c.json", b"")
    assert root.exists("a/b.json") and not root.exists("a/c.json")
    assert root.size("a/b.json") == 10
    assert root.read_bytes("a/b.json") == b"0123456789"
    assert root.read_range("a/b.json", 3, 4) == b"3456"
    assert root.read_bytes("c.json") == b""
    assert [path for path in root.list() if not path.startswith(".tmp")] == ["a/b.json", "c.json"]
    assert root.sizes("a") == {"a/b.json": 10}
    with root.open_read("a/b.json") as file:
        file.seek(8)
        assert file.read() == b"89"
    root.write_atomic("a/b.json", b"new")
    assert root.read_bytes("a/b.json") == b"new"
    root.remove("a/b.json")
    root.remove("a/b.json")
    assert not root.exists("a/b.json")


def test_trees_replace_what_was_there(root: StoreRoot) -> None:
    for names in (["x", "sub/y"], ["z"]):
        temporary = root.scratch_dir() / "tree"
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(name.encode())
        root.commit_tree(temporary, "shards/t.zarr")
        assert root.list("shards") == tuple(sorted(f"shards/t.zarr/{name}" for name in names))
        assert not temporary.exists()
    root.remove_tree("shards/t.zarr")
    root.remove_tree("shards/t.zarr")
    assert root.list("shards") == ()


def test_files_are_committed_from_scratch(root: StoreRoot) -> None:
    temporary = root.scratch_dir() / "file"
    temporary.write_bytes(b"data")
    root.commit_file(temporary, "shards/file.tar")
    assert root.read_bytes("shards/file.tar") == b"data"
    assert not temporary.exists()


def test_reading_what_is_missing_or_short_is_an_error(root: StoreRoot) -> None:
    root.write_atomic("a", b"123")
    for read in (
        lambda: root.read_bytes("none"),
        lambda: root.size("none"),
        lambda: root.read_range("a", 1, 5),
    ):
        with pytest.raises(StoreError, match=r"none|/a"):
            read()
    with pytest.raises(StoreError, match="3 bytes, more than"):
        root.read_bytes("a", max_bytes=2)


def test_a_root_survives_pickling(root: StoreRoot) -> None:
    root.write_atomic("a", b"1")
    assert pickle.loads(pickle.dumps(root)).read_bytes("a") == b"1"  # noqa: S301


def test_an_address_holds_in_any_folder_and_keeps_what_nobody_may_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = StoreRoot.open("store", create=True)
    assert (here.url, here.address) == ("store", str(tmp_path / "store"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(here)).local_path("a") == tmp_path / "store/a"  # noqa: S301
    remote = StoreRoot.open("memory://user:word@bucket/store")
    assert "word" not in remote.url and "word" not in repr(remote)
    assert remote.address == "memory://user:word@bucket/store"


def test_scratch_is_cleared(root: StoreRoot) -> None:
    left = root.scratch_dir() / "left-by-a-dead-run"
    left.write_bytes(b"x")
    root.clear_scratch()
    assert not left.exists()
    assert root.scratch_dir().is_dir()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no folder .*nowhere"):
        StoreRoot.open(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(StoreError, match=r"file.* cannot be a store: it is, or lies below, a file"):
            StoreRoot.open(str(tmp_path / path), create=True)


def test_file_urls_are_local(tmp_path: Path) -> None:
    root = StoreRoot.open(f"file://{tmp_path}")
    assert root.is_local
    assert root.local_path("a/b") == tmp_path / "a/b"
    assert StoreRoot.open("memory://x").local_path("a") is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_what_to_do(code: int) -> None:
    with (
        pytest.raises(StoreError, match="cannot write /data/x") as caught,
        explain_os_error("/data/x", "write"),
    ):
        raise OSError(code, "full")
    assert caught.value.hint is not None and "run the same command again" in caught.value.hint
