"""Redaction, stats and byte ranges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok.corpus import access


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("clips/a@b?c.mp4", "clips/a@b?c.mp4"),
        ("/data/a.mp4", "/data/a.mp4"),
        ("s3://bucket/a b/c.mp4", "s3://bucket/a b/c.mp4"),
        ("s3://KEY:SECRET@bucket/c.mp4", "s3://bucket/c.mp4"),
        ("s3://bucket/a#1.mp4", "s3://bucket/a#1.mp4"),
        ("https://SECRET@host:8080/a.mp4", "https://host:8080/a.mp4"),
        ("https://host/a.mp4?X-Amz-Signature=SECRET#SECRET", "https://host/a.mp4"),
        ("https://host?t=SECRET", "https://host"),
        ("ftp://user:SECRET/SECRET@host/a.mp4", "ftp://***/host/a.mp4"),
        (
            "abfs://container@account.dfs.core.windows.net/a.mp4",
            "abfs://container@account.dfs.core.windows.net/a.mp4",
        ),
        ("abfs://u:SECRET@account/a.mp4?sig=SECRET", "abfs://account/a.mp4"),
        ("https://[::1]:80/a.mp4", "https://[::1]:80/a.mp4"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert access.redact(url) == shown


@given(
    scheme=st.sampled_from(["https", "s3", "gs", "ftp", "sftp", "memory"]),
    user=st.text("abc", max_size=3),
    secret=st.from_regex(r"TOKEN[a-z0-9%+=.~_/-]{0,10}TOKEN", fullmatch=True),
    tail=st.text("abc/.", max_size=8),
)
def test_no_credential_survives(scheme: str, user: str, secret: str, tail: str) -> None:
    assert "TOKEN" not in access.redact(f"{scheme}://{user}:{secret}@host/{tail}?x={secret}&y={secret}")


def test_stat_of_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "gone", tmp_path / "nul\0byte", Path("/dev/null")):
        assert access.file_stat(str(path)) is None
    assert access.file_stat("memory://no/such.mp4") is None


@pytest.fixture(params=["local", "memory"])
def file_of_100_bytes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    data = bytes(range(100))
    if request.param == "local":
        (tmp_path / "f").write_bytes(data)
        yield str(tmp_path / "f")
    else:
        fs = fsspec.filesystem("memory")
        fs.pipe("memory://ranges/f", data)
        yield "memory://ranges/f"
        fs.rm("/ranges", recursive=True)


def test_ranges(file_of_100_bytes: str) -> None:
    with access.open_ranges(file_of_100_bytes) as reader:
        assert reader.read(0, 100) == bytes(range(100))
        assert reader.read(10, 5) == bytes(range(10, 15))
        assert reader.read(95, 50) == bytes(range(95, 100))
        assert reader.read(50, 0) == b""


def test_open_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), access.open_ranges(str(tmp_path / "pipe")):
        pass
