"""Our tars against Python's, and against liars."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dyntok.errors import DamageError
from dyntok.store.tar.stream import BLOCK, TarStream, parse_tar_header, tar_header


@pytest.mark.parametrize("size", [0, 1, 8 * 2**30 - 1, 8 * 2**30, 15 * 10**9, 2**50])
def test_headers_of_any_size_are_read_by_tarfile(size: int) -> None:
    header = tar_header("a-video.safetensors", size)
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (info.name, info.size, info.mtime, info.uid, info.mode) == (
        "a-video.safetensors",
        size,
        0,
        0,
        0o644,
    )
    member = parse_tar_header(header, BLOCK, 2**60, "x.tar")
    assert member is not None and member.size == size


def test_a_member_beyond_8_gib_is_read_by_tarfile(tmp_path: Path) -> None:
    """A sparse file of 9 GiB: only headers take space."""
    size = 9 * 2**30
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        file.write(tar_header("big.safetensors", size))
        file.seek(BLOCK + size)
        file.write(tar_header("big.json", 2) + b"{}" + bytes(510) + bytes(1024))
    with tarfile.open(path) as archive:
        assert [(member.name, member.size) for member in archive] == [
            ("big.safetensors", size),
            ("big.json", 2),
        ]
        assert archive.extractfile("big.json").read() == b"{}"


def test_rewinding_leaves_no_trace(tmp_path: Path) -> None:
    def write(name: str, detour: bool) -> tuple[bytes, str]:
        with (tmp_path / name).open("xb", buffering=0) as file:
            tar = TarStream(file)
            tar.add("a", 3, [b"ab", b"c"])
            mark = tar.mark()
            if detour:
                with pytest.raises(ValueError, match="announced"):
                    tar.add("b", 10**6, [b"x" * 10**5])
                tar.rewind(mark)
            tar.add("c", 2, [b"de"])
            tar.finish()
            digest = tar.sha256
        return (tmp_path / name).read_bytes(), digest

    assert write("straight", False) == write("detour", True)


def test_rewinding_large_members_too(tmp_path: Path) -> None:
    """Large enough to be hashed in the thread, and to be written out on the way."""
    rng = np.random.default_rng(0)
    first, second = rng.bytes(3 * 2**20), rng.bytes(40 * 2**20)
    with (tmp_path / "t").open("xb", buffering=0) as file:
        tar = TarStream(file)
        tar.add("a", len(first), [first])
        mark = tar.mark()
        tar.add("b", len(second), [second])
        tar.rewind(mark)
        tar.add("c", len(second), [second[: 2**25], second[2**25 :]])
        tar.finish()
        digest = tar.sha256
    assert digest == hashlib.sha256((tmp_path / "t").read_bytes()).hexdigest()
    with tarfile.open(tmp_path / "t") as archive:
        assert archive.getnames() == ["a", "c"]
        assert archive.extractfile("c").read() == second


def test_more_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "t").open("xb", buffering=0) as file, pytest.raises(ValueError, match="announced"):
        TarStream(file).add("a", 3, iter([b"ab", b"cd", b"never read"]))


def test_long_names_are_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        tar_header("x" * 101, 1)


def hostile(name: str = "a.json", kind: bytes = tarfile.REGTYPE, linkname: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, linkname, size
    return info.tobuf(tarfile.GNU_FORMAT)[:BLOCK]


@pytest.mark.parametrize(
    "block",
    [
        hostile(kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile(kind=tarfile.LNKTYPE, linkname="other"),
        hostile(kind=tarfile.DIRTYPE),
        hostile(kind=tarfile.CHRTYPE),
        hostile(kind=tarfile.FIFOTYPE),
        hostile(kind=tarfile.XHDTYPE, size=10),
        hostile(kind=tarfile.GNUTYPE_LONGNAME, size=10),
        hostile(kind=tarfile.GNUTYPE_SPARSE),
        hostile(size=10**6),
        b"x" * BLOCK,
        hostile()[:-1] + b"\1",
        hostile()[:100],
    ],
)
def test_anything_but_a_plain_file_inside_is_refused(block: bytes) -> None:
    with pytest.raises(DamageError, match=r"shard\.tar"):
        parse_tar_header(block, BLOCK, 2048, "shard.tar")


def test_negative_sizes_are_refused() -> None:
    header = bytearray(tar_header("a", 2**40))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(DamageError, match="claims -1 bytes"):
        parse_tar_header(bytes(header), BLOCK, 2048, "shard.tar")


def test_the_end_of_an_archive_is_no_member() -> None:
    assert parse_tar_header(bytes(BLOCK), BLOCK, 2048, "shard.tar") is None
    with tarfile.open(fileobj=io.BytesIO(bytes(1024))) as empty:
        assert empty.getmembers() == []
