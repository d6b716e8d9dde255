"""Every operation outlives faults that pass, and ends with one kind of error where they do not."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from dyntok.objects import (
    DeniedObjectError,
    MissingObjectError,
    ObjectFile,
    ObjectStoreError,
    Patience,
    Remote,
    is_object_store,
    object_info,
)
from dyntok.objects.remote import _CONDITIONAL, _s3_options, each_at_once
from tests.support.faulty_fs import Fault, FaultyFileSystem, denied, reset, throttled

DATA = bytes(range(256)) * 8
Faulty = type[FaultyFileSystem]


def stored(path: str) -> bytes:
    with fsspec.open(f"memory://{path}") as file:
        data: bytes = file.read()
    return data


OPERATIONS: dict[str, tuple[str, Callable[[Remote, Path], object]]] = {
    "info": ("info", lambda r, _: r.info("/bucket/a").size_bytes),
    "read": ("cat_file", lambda r, _: r.read("/bucket/a", 3, 100)),
    "children": ("ls", lambda r, _: [entry["name"] for entry in r.children("/bucket")]),
    "find": ("find", lambda r, _: sorted(r.find("/bucket"))),
    "put_bytes": ("pipe_file", lambda r, _: r.put_bytes("/bucket/new", DATA)),
    "put_file": ("put_file", lambda r, p: r.put_file(p, "/bucket/new")),
    "copy": ("cp_file", lambda r, _: r.copy("/bucket/a", "/bucket/new")),
    "remove": ("rm_file", lambda r, _: r.remove("/bucket/b")),
}


@pytest.fixture(autouse=True)
def content(faulty: Faulty) -> None:
    fs = fsspec.filesystem("faulty")
    fs.pipe_file("/bucket/a", DATA)
    fs.pipe_file("/bucket/b", b"b")
    faulty.calls.clear()


@pytest.fixture
def memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("error", [throttled, reset])
@pytest.mark.parametrize("name", OPERATIONS)
def test_faults_that_pass(
    name: str, error: Callable[[], Exception], remote: Remote, faulty: Faulty, local: Path
) -> None:
    operation, call = OPERATIONS[name]
    expected = call(remote, local)
    fsspec.filesystem("faulty").pipe_file("/bucket/b", b"b")
    fault = Fault(operation, error=error, times=3)
    faulty.faults.append(fault)
    assert call(remote, local) == expected
    assert fault.done == 3
    faulty.faults.clear()
    if "put" in name or name == "copy":
        assert fsspec.filesystem("faulty").cat_file("/bucket/new") == DATA


@pytest.mark.parametrize("name", OPERATIONS)
def test_faults_that_stay(name: str, remote: Remote, faulty: Faulty, local: Path) -> None:
    operation, call = OPERATIONS[name]
    for error, kind, tries in (
        (throttled, ObjectStoreError, 4),
        (denied, DeniedObjectError, 1),
        (lambda: ValueError("odd"), ObjectStoreError, 1),
    ):
        fault = Fault(operation, error=error, times=-1)
        faulty.faults[:] = [fault]
        with pytest.raises(kind):
            call(remote, local)
        assert fault.done == tries, kind


def test_missing(remote: Remote) -> None:
    for call in (
        remote.info,
        remote.children,
        lambda p: remote.read(p, 0, 1),
        lambda p: remote.copy(p, "/x"),
    ):
        with pytest.raises(MissingObjectError):
            call("/bucket/none")
    assert remote.find("/nowhere") == {}
    remote.remove("/bucket/none")
    remote.remove_tree("/nowhere")


def test_short_reads_are_tried_again(remote: Remote, faulty: Faulty) -> None:
    faulty.faults.append(Fault("cat_file", times=2))
    assert remote.read("/bucket/a", 0, len(DATA)) == DATA
    faulty.faults.append(Fault("cat_file", times=-1))
    with pytest.raises(ObjectStoreError, match="50 bytes came where 100 were asked for"):
        remote.read("/bucket/a", 0, 100)


def test_the_end_of_an_object_is_no_fault_that_passes(remote: Remote, faulty: Faulty) -> None:
    with pytest.raises(ObjectStoreError, match=f"ends at byte {len(DATA)}") as caught:
        remote.read("/bucket/a", len(DATA) - 5, 10)
    assert caught.value.fault == "broken"
    assert sum(operation == "cat_file" for operation, _ in faulty.calls) == 1
    assert remote.read("/bucket/a", 0, 0) == b""


@pytest.mark.parametrize("operation", ["pipe_file", "put_file"])
def test_a_write_that_dies_midway_is_done_again(operation: str, remote: Remote, faulty: Faulty, local: Path) -> None:
    put = remote.put_bytes if operation == "pipe_file" else None
    faulty.faults.append(Fault(operation, times=2))
    if put:
        put("/bucket/new", DATA)
    else:
        remote.put_file(local, "/bucket/new")
    assert fsspec.filesystem("faulty").cat_file("/bucket/new") == DATA


def test_a_write_that_arrives_in_part_without_a_word_is_noticed(
    remote: Remote, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FaultyFileSystem.pipe_file
    sizes = iter([3, 2, len(DATA)])

    def partial(self: FaultyFileSystem, path: str, value: bytes, **more: object) -> None:
        whole(self, path, value[: next(sizes)])

    monkeypatch.setattr(FaultyFileSystem, "pipe_file", partial)
    remote.put_bytes("/bucket/new", DATA)
    assert fsspec.filesystem("faulty").cat_file("/bucket/new") == DATA


def test_trees(remote: Remote, faulty: Faulty) -> None:
    for name in ("t/x", "t/deep/y", "tt"):
        remote.put_bytes(f"/bucket/{name}", b"1")
    assert sorted(remote.find("/bucket/t")) == ["/bucket/t/deep/y", "/bucket/t/x"]
    remote.remove_tree("/bucket/t")
    assert sorted(remote.find("/bucket")) == ["/bucket/a", "/bucket/b", "/bucket/tt"]


def test_stopping_ends_the_tries(faulty: Faulty) -> None:
    remote, _ = Remote.open("faulty://bucket", Patience(first_wait_s=30.0), stop=lambda: True)
    faulty.faults.append(Fault("info", error=throttled, times=-1))
    with pytest.raises(ObjectStoreError):
        remote.info("/bucket/a")


def test_what_a_driver_says_of_an_object() -> None:
    file = {"type": "file", "size": 3, "ETag": '"abc"', "etag": "d"}
    assert object_info("s3", file) and object_info("s3", file).etag == "abc"  # type: ignore[union-attr]
    assert object_info("https", file).etag is None  # type: ignore[union-attr]
    assert object_info("s3", {"type": "directory", "size": 0}).is_folder  # type: ignore[union-attr]
    assert object_info("s3", {"type": "file", "size": None}) is None
    assert is_object_store("gs") and not is_object_store("sftp") and not is_object_store(None)


@pytest.mark.parametrize("protocol", sorted(_CONDITIONAL))
def test_drivers_that_are_said_to_write_on_condition_do_so_themselves(protocol: str) -> None:
    """fsspec's own `put_file` looks and then writes, and older drivers drop a `mode` that they do not know."""
    try:
        driver = fsspec.get_filesystem_class(protocol)
    except ImportError:
        assert protocol in ("gcs", "gs")
        pytest.skip("gcsfs is not installed")
    put_file = getattr(driver, "_put_file", AbstractFileSystem.put_file)
    assert put_file not in (AbstractFileSystem.put_file, AsyncFileSystem._put_file)
    assert "mode" in inspect.signature(put_file).parameters


def test_files_in_memory_are_not_written_on_condition(
    local: Path, memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer comes between the driver's look and its write: hence the rule."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/plan", b"first")
    monkeypatch.setattr(MemoryFileSystem, "exists", lambda *_, **__: False)
    fs.put_file(str(local), "/bucket/plan", mode="create")
    assert stored("/bucket/plan") == DATA and "memory" not in _CONDITIONAL


def test_unknown_protocols() -> None:
    with pytest.raises(ObjectStoreError, match="nowhere"):
        Remote.open("nowhere://a")


def test_the_tries_of_the_s3_client_are_few_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _s3_options("s3")["config_kwargs"]["retries"]["total_max_attempts"] == 3
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 5}})
    options = _s3_options("s3")["config_kwargs"]
    assert options["read_timeout"] == 5 and options["connect_timeout"] == 10
    remote, path = Remote.open("s3://bucket/a")
    assert path == "bucket/a" and remote._fs.retries == 1
    assert remote._fs.config_kwargs == options


def test_many_at_once_report_the_first_error() -> None:
    seen: list[int] = []

    def call(number: int) -> None:
        seen.append(number)
        if number % 5 == 3:
            raise ObjectStoreError(f"{number}")

    with pytest.raises(ObjectStoreError, match=r"^3$"):
        each_at_once(call, range(20))
    each_at_once(call, [1, 2])
    assert {1, 2, 3} <= set(seen)


# as a file ---------------------------------------------------------------------------------------------------


def test_an_object_as_a_file(remote: Remote, faulty: Faulty) -> None:
    file = ObjectFile(remote, "/bucket/a", len(DATA), block_bytes=300, blocks=2)
    assert file.read(10) == DATA[:10] and file.tell() == 10
    file.seek(-5, os.SEEK_END)
    assert file.read() == DATA[-5:] and file.read(3) == b""
    file.seek(250)
    file.seek(40, os.SEEK_CUR)
    assert file.read(600) == DATA[290:890]
    assert file.read_at(0, 10**6) == DATA
    assert file.seekable() and file.readable() and not file.writable()
    faulty.calls.clear()
    for offset in (1700, 1750, 1650, 2000):
        assert file.read_at(offset, 40) == DATA[offset : offset + 40]
    assert not faulty.calls, "the last two blocks are kept"
    faulty.faults.append(Fault("cat_file", error=reset, times=2))
    assert file.read_at(5, 5) == DATA[5:10]
    faulty.faults.append(Fault("cat_file", error=denied, times=-1))
    with pytest.raises(DeniedObjectError):
        file.read_at(1000, 5)


@pytest.mark.parametrize("bucket", ["KEY:SECRET@bucket", "KEY:SEC/RET@bucket", "KEY@bucket"])
def test_credentials_in_s3_urls_are_refused_without_repeating_them(bucket: str) -> None:
    with pytest.raises(ObjectStoreError, match="hold no credentials") as caught:
        Remote.open(f"s3://{bucket}/a")
    assert "SEC" not in str(caught.value)
    Remote.open("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/a/b")


def test_secrets_of_the_url_are_left_out_of_what_drivers_say(faulty: Faulty) -> None:
    remote, path = Remote.open("faulty://user:SECRET@bucket/a?token=HIDDEN", Patience(tries=1))
    faulty.faults.append(Fault("info", error=lambda: OSError("user:SECRET may not (HIDDEN)")))
    with pytest.raises(ObjectStoreError, match=r"^\*\*\* may not \(\*\*\*\)$"):
        remote.info(path)
