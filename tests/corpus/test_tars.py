"""Tars as inputs. The oracle is `tarfile`: what it extracts lies at the offsets that we list."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, fingerprint, list_inputs
from dyntok.errors import InputError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def make_tar(path: Path, members: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def items_of(path: Path | str) -> list[CorpusItem]:
    return list(list_inputs([str(path)]))


def content(item: CorpusItem) -> bytes:
    assert item.ref.offset is not None and item.ref.length is not None
    with fsspec.open(item.ref.path, "rb") as file:
        file.seek(item.ref.offset)
        data: bytes = file.read(item.ref.length)
        return data


def expected(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        files = [m for m in tar if m.isfile() and m.name.endswith(".mp4")]
        return [(m.name.removeprefix("./"), tar.extractfile(m).read()) for m in files]  # type: ignore[union-attr]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_real_clips(tmp_path: Path, clip_folder: Path, tar_format: int) -> None:
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w", format=tar_format) as tar:
        tar.add(clip_folder, "data")
    items = items_of(path)
    assert [(i.id, content(i)) for i in items] == expected(path)
    assert len(items) == 4
    for item in items:
        assert item.source == f"clips.tar!{item.id}"
        assert item.size_bytes == item.ref.length
        whole = CorpusItem("x", "x", type(item.ref)(str(clip_folder / Path(item.id).name)), item.size_bytes)
        assert fingerprint(item) == fingerprint(whole)
        assert fingerprint(item, full=True) == fingerprint(whole, full=True)


names = st.lists(st.text("abé 0-_", min_size=1, max_size=60), min_size=1, max_size=4).map(
    lambda parts: "/".join(parts) + ".mp4"
)


@settings(max_examples=60, deadline=None)
@given(
    members=st.dictionaries(names, st.binary(max_size=1500), min_size=1, max_size=6),
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_names_and_sizes(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], tar_format: int
) -> None:
    path = make_tar(tmp_path_factory.mktemp("tar") / "t.tar", members, tar_format)
    assert [(i.id, content(i)) for i in items_of(path)] == list(members.items()) == expected(path)


def test_ustar_prefix(tmp_path: Path) -> None:
    name = "d" * 90 + "/" + "f" * 90 + ".mp4"
    path = make_tar(tmp_path / "t.tar", {name: b"x"}, tarfile.USTAR_FORMAT)
    assert [i.id for i in items_of(path)] == [name]


def test_what_the_tar_program_writes(tmp_path: Path, clip_folder: Path) -> None:
    for tar_format in ("v7", "oldgnu", "gnu", "ustar", "posix"):
        path = tmp_path / f"{tar_format}.tar"
        subprocess.run(["tar", f"--format={tar_format}", "-cf", path, "-C", clip_folder, "."], check=True)
        found = [(i.id, content(i)) for i in items_of(path)]
        assert found == expected(path)
        assert len(found) == 4


def test_skips_what_is_no_video(tmp_path: Path) -> None:
    members = {
        "0001.mp4": b"a",
        "0001.json": b"{}",
        "./sub/.x.mp4": b"",
        "._0001.mp4": b"",
        "./sub//ok.MP4": b"b",
    }
    skipped: list[tuple[str, str]] = []
    path = make_tar(tmp_path / "t.tar", members)
    items = list(list_inputs([str(path)], on_skip=lambda what, why: skipped.append((what, why))))
    assert [(i.id, content(i)) for i in items] == [("0001.mp4", b"a"), ("sub/ok.MP4", b"b")]
    assert skipped == [
        ("t.tar!0001.json", "suffix"),
        ("t.tar!sub/.x.mp4", "hidden"),
        ("t.tar!._0001.mp4", "hidden"),
    ]


def test_glob_of_tars_lists_their_members(tmp_path: Path) -> None:
    for number in range(3):
        make_tar(tmp_path / f"{number}.tar", {f"{number}.mp4": b"x"})
    assert [i.source for i in items_of(tmp_path / "*.tar")] == ["0.tar!0.mp4", "1.tar!1.mp4", "2.tar!2.mp4"]


@pytest.fixture
def remote() -> Iterator[str]:
    yield "memory://tars/t.tar"
    fsspec.filesystem("memory").rm("/tars", recursive=True)


@pytest.mark.parametrize("size", [10, 600_000])
def test_tar_in_an_object_store(tmp_path: Path, remote: str, size: int) -> None:
    members = {f"{i}.mp4": bytes([i]) * (size + i) for i in range(20)}
    path = make_tar(tmp_path / "t.tar", members)
    fsspec.filesystem("memory").pipe(remote, path.read_bytes())
    items = items_of(remote)
    assert [(i.id, content(i)) for i in items] == list(members.items())
    assert [(i.id, i.source, i.ref.offset) for i in items] == [(i.id, i.source, i.ref.offset) for i in items_of(path)]
    assert [fingerprint(i) for i in items] == [fingerprint(i) for i in items_of(path)]


def hostile(path: Path, name: str, kind: bytes = tarfile.REGTYPE, **fields: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("ok.mp4"))
        info = tarfile.TarInfo(name)
        info.type = kind
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info)
    return path


@pytest.mark.parametrize(
    "name", ["/etc/a.mp4", "../a.mp4", "a/../../b.mp4", "/etc/passwd", "..", "a" * 300 + "/../x.mp4"]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="absolute or parent path"):
        items_of(hostile(tmp_path / "t.tar", name))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match="a link or a device") as caught:
        items_of(hostile(tmp_path / "t.tar", "b.mp4", kind, linkname="ok.mp4"))
    assert "t.tar" in caught.value.message and "b.mp4" in caught.value.message
    assert [i.id for i in items_of(hostile(tmp_path / "t.tar", "b.txt", kind, linkname="ok.mp4"))] == ["ok.mp4"]


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "holes.mp4").open("wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"x" * 4096)
    (tmp_path / "z.mp4").write_bytes(b"z")
    for options in (
        ["--format=gnu"],
        *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")),
    ):
        path = tmp_path / "sparse.tar"
        subprocess.run(["tar", "-S", *options, "-cf", path, "-C", tmp_path, "holes.mp4", "z.mp4"], check=True)
        with pytest.raises(InputError, match=r"holes\.mp4 is a sparse file"):
            items_of(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    members = {"a.mp4": b"a" * 700, "b" * 150 + ".mp4": b"", "c.mp4": b"c" * 512}
    for tar_format in FORMATS.values():
        if tar_format == tarfile.USTAR_FORMAT:
            members = {"a.mp4": b"a" * 700, "c.mp4": b"c" * 512}
        whole = make_tar(tmp_path / "whole.tar", members, tar_format).read_bytes()
        last = items_of(tmp_path / "whole.tar")[-1].ref
        end = (last.offset or 0) + 512
        for cut in [*range(0, end, 100), *range(0, end + 1, 512), end + 511]:
            (tmp_path / "cut.tar").write_bytes(whole[:cut])
            with pytest.raises(InputError, match=r"cut\.tar"):
                items_of(tmp_path / "cut.tar")
        (tmp_path / "cut.tar").write_bytes(whole[: end + 512])  # one zero block is an end mark
        assert len(items_of(tmp_path / "cut.tar")) == len(members)


def test_damaged_header_in_the_middle(tmp_path: Path) -> None:
    """`tarfile` itself takes it for the end and says nothing."""
    path = make_tar(tmp_path / "t.tar", {"a.mp4": b"a" * 512, "b.mp4": b"b"}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[1024] ^= 0xFF
    path.write_bytes(data)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["a.mp4"]
    with pytest.raises(InputError, match="no valid tar header at byte 1024"):
        items_of(path)


def test_joined_with_cat(tmp_path: Path) -> None:
    one = make_tar(tmp_path / "1.tar", {"a.mp4": b"a"}).read_bytes()
    (tmp_path / "t.tar").write_bytes(one + one)
    with pytest.raises(InputError, match="after the end mark"):
        items_of(tmp_path / "t.tar")


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tgz", "T.TAR.GZ"])
def test_compressed_tar_is_refused_with_a_hint(tmp_path: Path, name: str) -> None:
    data = make_tar(tmp_path / "plain.tar", {"a.mp4": b"a"}).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data))
    with pytest.raises(InputError, match="compressed") as caught:
        items_of(tmp_path / name)
    assert caught.value.hint and "zip" in caught.value.hint


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


MALFORMED = {
    "huge long name": header("x", tarfile.GNUTYPE_LONGNAME, 1 << 40),
    "huge pax header": header("x", tarfile.XHDTYPE, 1 << 30),
    "huge member": header("x.mp4", tarfile.REGTYPE, 1 << 60),
    "negative size": b"",
    "negative size of an extended header": b"",
    "pax record too long": header("x", tarfile.XHDTYPE, 11) + padded(b"99 path=a\n\n"),
    "pax record without number": header("x", tarfile.XHDTYPE, 10) + padded(b"xx path=a\n"),
    "pax record of length 0": header("x", tarfile.XHDTYPE, 10) + padded(b"0 path=aa\n"),
    "pax size is no number": header("x", tarfile.XHDTYPE, 11) + padded(b"11 size=-1\n") + header("a.mp4", b"0", 0),
    "global name": header("x", tarfile.XGLTYPE, 10) + padded(b"10 path=a\n") + header("a.mp4", b"0", 0),
    "extended header at the end": header("x", tarfile.XHDTYPE, 10) + padded(b"10 path=a\n"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_headers(tmp_path: Path, kind: str) -> None:
    data = MALFORMED[kind]
    if kind.startswith("negative size"):
        block = bytearray(header("x.mp4", tarfile.REGTYPE if kind == "negative size" else tarfile.XHDTYPE, 0))
        block[124:136] = b"\xff" * 12
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = bytes(block)
    (tmp_path / "bad.tar").write_bytes(data + bytes(1024))
    with pytest.raises(InputError, match=r"bad\.tar") as caught:
        items_of(tmp_path / "bad.tar")
    assert caught.value.hint


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 4095), value=st.integers(0, 255))
def test_a_flipped_byte_never_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = make_tar(tmp_path_factory.mktemp("flip") / "t.tar", {"a" * 120 + ".mp4": b"a", "b.mp4": b"b" * 600})
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    try:
        items = items_of(path)
    except InputError:
        return
    assert all(len(content(item)) == item.ref.length for item in items)


def test_extended_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.mp4")
        info.pax_headers = {"comment": "x" * 1_100_000}
        tar.addfile(info)
    with pytest.raises(InputError, match="an extended header of 11000"):
        items_of(tmp_path / "t.tar")


def test_cut_content_names_the_member(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "t.tar", {"a.mp4": b"a" * 5000})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"a\.mp4 should end at byte"):
        items_of(path)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_sizes_of_members_without_content_do_not_count(tmp_path: Path, kind: bytes) -> None:
    data = header("x", kind, 512) + header("a.mp4", tarfile.REGTYPE, 1) + padded(b"v") + bytes(1024)
    (tmp_path / "t.tar").write_bytes(data)
    assert [(i.id, content(i)) for i in items_of(tmp_path / "t.tar")] == expected(tmp_path / "t.tar")
    assert len(items_of(tmp_path / "t.tar")) == 1


def test_harmless_global_header(tmp_path: Path) -> None:
    comment = header("pax_global_header", tarfile.XGLTYPE, 14) + padded(b"14 comment=ab\n")
    (tmp_path / "t.tar").write_bytes(comment + header("a.mp4", b"0", 0) + bytes(1024))
    assert [i.id for i in items_of(tmp_path / "t.tar")] == ["a.mp4"]


def test_pax_size_wins_over_the_header(tmp_path: Path) -> None:
    extended = header("x", tarfile.XHDTYPE, 12) + padded(b"12 size=600\n")
    (tmp_path / "t.tar").write_bytes(extended + header("a.mp4", b"0", 0) + padded(b"v" * 600) + bytes(1024))
    (item,) = items_of(tmp_path / "t.tar")
    assert content(item) == b"v" * 600


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("café.mp4"))
    with pytest.raises(InputError, match="caf%E9"):
        items_of(tmp_path / "t.tar")
