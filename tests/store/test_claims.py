"""Of several writers of a new file, one wins, and everybody knows who."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from dyntok.errors import StoreError
from dyntok.objects import remote, retries
from dyntok.store import StoreRoot, claims
from dyntok.store.claims import claim_bytes
from tests.support.faulty_fs import Fault, faulty_store, throttled


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRoot]:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    yield StoreRoot.open(url, create=True)


def test_the_first_one_counts(root: StoreRoot) -> None:
    assert claim_bytes(root, b"one", "a/plan")
    assert not claim_bytes(root, b"two", "a/plan")
    assert root.read_bytes("a/plan") == b"one"
    assert not list(root.scratch_dir().iterdir())


def test_of_many_at_once_one_wins_and_its_content_is_there(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path / "store"), create=True)
    for attempt in range(20):
        barrier = threading.Barrier(4)

        def claim(number: int, path: str = f"plan-{attempt}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(10)
            return claim_bytes(root, b"%d" % number, path)

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(claim, range(4)))
        assert won.count(True) == 1
        assert root.read_bytes(f"plan-{attempt}") == b"%d" % won.index(True)


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    root = StoreRoot.open(str(tmp_path / "store"), create=True)
    assert claim_bytes(root, b"one", "plan")
    assert not claim_bytes(root, b"two", "plan")
    assert root.read_bytes("plan") == b"one"


def test_an_error_is_no_defeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(claims.os, "link", full)
    with pytest.raises(StoreError, match="No space left"):
        claim_bytes(StoreRoot.open(str(tmp_path / "store"), create=True), b"one", "plan")


@pytest.mark.parametrize("url", ["faulty://bucket/store", "faulty://user:secret@bucket/store"])
def test_faults_that_pass_are_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the address that was given, with what stands before the @."""
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    with faulty_store() as faulty:
        root = StoreRoot.open(url)
        faulty.faults += [Fault("info", error=throttled), Fault("put_file", times=2)]
        assert claim_bytes(root, b"one", "plan")
        assert not claim_bytes(root, b"two", "plan")
        assert root.read_bytes("plan") == b"one"
        assert all(fault.done for fault in faulty.faults)


def test_a_write_whose_answer_was_lost_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    monkeypatch.setattr(remote, "_CONDITIONAL", remote._CONDITIONAL | {"memory"})
    root = StoreRoot.open(f"memory://{uuid.uuid4().hex}")
    fs = fsspec.filesystem("memory")

    def lost(local: str, path: str, **_: object) -> None:
        fs.pipe_file(path, Path(local).read_bytes())
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(fs, "put_file", lost)
    assert not claim_bytes(root, b"ours", "plan"), "it cannot be told whose it is"
    assert root.read_bytes("plan") == b"ours"


@pytest.mark.parametrize("there", [True, False])
def test_a_conflict_that_the_store_reports_in_its_own_way(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 refuses one of two writes that meet; s3fs gives an OSError for it."""
    monkeypatch.setattr(remote, "_CONDITIONAL", remote._CONDITIONAL | {"memory"})
    root = StoreRoot.open(f"memory://{uuid.uuid4().hex}")
    fs = fsspec.filesystem("memory")

    def conflict(local: str, path: str, **_: object) -> None:
        if there:
            fs.pipe_file(path, b"theirs")
        raise OSError(errno.EIO, "ConditionalRequestConflict")

    monkeypatch.setattr(fs, "put_file", conflict)
    if there:
        assert not claim_bytes(root, b"ours", "plan")
    else:
        with pytest.raises(StoreError, match="Conflict"):
            claim_bytes(root, b"ours", "plan")
