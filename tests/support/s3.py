"""An S3 server on this machine, and a proxy before it that can be told to misbehave."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.error import URLError

import fsspec

from tests.support.faulty_http import FaultyProxy

BUCKET = "tokens-bucket"
ACCESS_KEY, SECRET_KEY = "AKIAFAKEFAKEFAKEFAKE", "fake+secret/key+that+must+not+show"
_START_S = 60.0


@contextmanager
def s3_server() -> Iterator[FaultyProxy]:
    """A moto server with one bucket, and the environment by which S3 clients find it through the proxy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(port)
            proxy = FaultyProxy(port)
            try:
                with s3_environment(proxy):
                    plain_s3().mkdir(BUCKET)
                    yield proxy
            finally:
                proxy.close()
        finally:
            server.kill()


def _wait(port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with suppress(URLError, OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError("moto does not start")


@contextmanager
def s3_environment(proxy: FaultyProxy) -> Iterator[None]:
    values = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.endpoint,
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        yield
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def plain_s3() -> Any:
    """s3fs as anybody would open it, for putting things there and looking at them."""
    return fsspec.filesystem("s3")


def stored_parts() -> set[int]:
    """Numbers of the parts that have arrived of the one multipart upload that is open."""
    (upload,) = plain_s3().list_multipart_uploads(BUCKET)
    parts = plain_s3().call_s3("list_parts", Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    return {part["PartNumber"] for part in parts.get("Parts", [])}


def open_uploads() -> list[str]:
    """Keys of the multipart uploads that were begun and neither completed nor aborted."""
    return [upload["Key"] for upload in plain_s3().list_multipart_uploads(BUCKET)]
