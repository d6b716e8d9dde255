"""Uploads in parts to a real S3 API: whole or not there, and no parts left behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyntok.objects import MissingObjectError, ObjectStoreError, Patience, Remote, multipart
from tests.support.faulty_http import FaultyProxy
from tests.support.s3 import BUCKET, open_uploads, plain_s3, s3_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
QUICK = Patience(tries=4, first_wait_s=0.001, longest_wait_s=0.002)
SIZE = 11 * 2**20 + 17
KEY = f"{BUCKET}/shards/shard-000000.tar"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "shard.tar"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def remote(server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * 2**20)
    server.clear()
    remote, _ = Remote.open(f"s3://{BUCKET}", QUICK)
    yield remote
    server.clear()
    remote.remove(KEY)
    assert not open_uploads(), "parts were left behind"


def uploaded() -> bytes:
    data: bytes = plain_s3().cat_file(KEY)
    return data


def test_of_two_new_files_the_first_counts(remote: Remote, tmp_path: Path) -> None:
    """Nobody looks before: the server itself refuses the second one."""
    for content, counts in ((b"one", True), (b"two", False)):
        (tmp_path / "plan").write_bytes(content)
        assert remote.put_new(tmp_path / "plan", KEY) == counts
    assert uploaded() == b"one"


PART = {"method": "PUT", "path": "partNumber"}
PASSING = [
    {"what": "status", **PART, "times": 5},
    {"what": "status", **PART, "status": 500, "code": "InternalError"},
    {"what": "reset", **PART, "times": 2},
    {"what": "late", **PART},
    {"what": "status", "method": "POST", "path": "uploads"},
    {"what": "status", "method": "POST", "path": "uploadId"},
    {"what": "late", "method": "POST", "path": "uploadId"},
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f['what']}-{f['method']}-{f['path']}")
def test_faults_that_pass(fault: dict[str, object], remote: Remote, server: FaultyProxy, shard: Path) -> None:
    struck = server.add(**fault)  # type: ignore[arg-type]
    remote.put_file(shard, KEY)
    assert struck.done >= 1
    assert uploaded() == shard.read_bytes()
    assert server.count("PUT", "partNumber") >= 3


@pytest.mark.parametrize("status", [503, 403])
def test_faults_that_stay_leave_neither_a_shard_nor_parts(
    status: int, remote: Remote, server: FaultyProxy, shard: Path
) -> None:
    server.add(
        "status",
        **PART,
        skip=1,
        times=-1,
        status=status,
        code="SlowDown" if status == 503 else "AccessDenied",
    )
    with pytest.raises(ObjectStoreError) as caught:
        remote.put_file(shard, KEY)
    assert caught.value.fault == ("busy" if status == 503 else "denied")
    assert server.count("DELETE", "uploadId") == 1
    with pytest.raises(MissingObjectError):
        remote.info(KEY)


def test_what_a_killed_writer_left_is_aborted(remote: Remote, server: FaultyProxy, shard: Path) -> None:
    fs = plain_s3()
    for key in ("shards/shard-000000.tar", "shards/shard-000000.tar.other"):
        upload = fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
        fs.call_s3("upload_part", Bucket=BUCKET, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * 9)
    remote.put_file(shard, KEY)
    assert open_uploads() == ["shards/shard-000000.tar.other"], "that of another object is not ours"
    fs.clear_multipart_uploads(BUCKET)
    assert uploaded() == shard.read_bytes()


def test_an_upload_that_another_writer_aborted_begins_again(
    remote: Remote, server: FaultyProxy, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server answers 500 instead of 404 to a part that it takes in while its upload is aborted.
    monkeypatch.setattr(multipart, "_PARTS_AT_ONCE", 1)

    def abort() -> None:
        plain_s3().clear_multipart_uploads(BUCKET)

    server.add("status", **PART, skip=1, action=abort, status=404, code="NoSuchUpload")
    remote.put_file(shard, KEY)
    assert uploaded() == shard.read_bytes()
    assert server.count("POST", r"uploads(=|$|&)") == 2


def test_an_upload_that_is_stopped_is_taken_back(
    remote: Remote, server: FaultyProxy, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "_PARTS_AT_ONCE", 1)
    stop = threading.Event()
    server.add("call", **PART, action=stop.set)
    with pytest.raises(ObjectStoreError):
        remote.put_file(shard, KEY, stop.is_set)
    with pytest.raises(MissingObjectError):
        remote.info(KEY)


def test_small_files_go_up_in_one_piece(remote: Remote, server: FaultyProxy, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"123")
    server.add("late", method="PUT")
    remote.put_file(small, KEY)
    assert uploaded() == b"123" and not server.count("POST")
