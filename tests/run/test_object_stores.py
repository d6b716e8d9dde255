"""The whole path over object stores: an in-memory one, and an S3 server on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import fsspec
import pytest
import torch

import dyntok
from dyntok.run import encode, status
from dyntok.store import convert, verify
from tests.support.runs import demo_config

CLIPS = ("bikes.mp4", "carphone_pristine.mp4")


@pytest.fixture
def memory_url() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            with suppress(URLError, ConnectionError), urllib.request.urlopen(endpoint, timeout=5):
                break
            time.sleep(0.1)
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("tokens-bucket")
        yield "s3://tokens-bucket"
        server.kill()


def round_trip(url: str, inputs: list[str], clip_folder: Path, tmp_path: Path) -> None:
    """Encode into the object store, resume, read, verify, convert; against the same run on disk."""
    fs, _ = fsspec.url_to_fs(url)
    local = tmp_path / "local"
    encode([str(clip_folder / name) for name in CLIPS], str(local), demo_config())

    out = f"{url}/tokens"
    report = encode(inputs, out, demo_config())
    assert (report.done, report.failed) == (2, 0)
    assert encode(inputs, out, demo_config()).already == 2
    assert status(out).state == "complete"
    assert verify(out).ok
    stored, same = dyntok.open(out), dyntok.open(local)
    for name in CLIPS:
        assert torch.equal(stored[name].at(frames=2).tokens, same[name].at(frames=2).tokens)
    with fs.open(f"{out}/shards/shard-000000.tar") as shard:
        assert shard.read() == (local / "shards" / "shard-000000.tar").read_bytes()

    convert(out, f"{url}/zarr", format="zarr")
    assert verify(f"{url}/zarr").ok
    assert torch.equal(dyntok.open(f"{url}/zarr")[CLIPS[0]].at().tokens, same[CLIPS[0]].at().tokens)

    # Without its record a shard does not exist, whatever lies there.
    fs.rm_file(f"{out}/shards/shard-000000.json")
    fs.rm_file(f"{out}/manifest.json")
    assert encode([], out, demo_config()).already == 0
    assert verify(out).ok


def test_in_memory(memory_url: str, clip_folder: Path, tmp_path: Path) -> None:
    """Decode processes cannot see this process's memory, so the videos are on disk here."""
    round_trip(memory_url, [str(clip_folder / name) for name in CLIPS], clip_folder, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_s3(s3_url: str, clip_folder: Path, tmp_path: Path) -> None:
    for name in CLIPS:
        fsspec.filesystem("s3").put_file(str(clip_folder / name), f"{s3_url}/videos/{name}")
    round_trip(s3_url, [f"{s3_url}/videos"], clip_folder, tmp_path)
