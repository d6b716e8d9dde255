"""Videos inside an uncompressed tar, found by its headers alone; nothing is unpacked.

`tarfile` parses each header block. The walk is ours because `tarfile` keeps every member in memory, reads
extended headers of any size, and takes a damaged header in mid-file for the end of the archive.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from dyntok.corpus import access
from dyntok.corpus.access import RangeReader
from dyntok.corpus.items import CorpusItem, OnSkip, check_name, has_video_suffix, printable
from dyntok.errors import InputError
from dyntok.records import SourceRef

_BLOCK = 512
_EXTENDED_LIMIT = 1024 * 1024
_TRAILER = 64 * 1024
_REMOTE_BUFFER = 256 * 1024
_REPACK = "repack it with GNU tar: tar --dereference --hard-dereference -cf NEW.tar -C FOLDER ."
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member's name, type, and the byte range of its content."""

    name: str
    type: bytes
    offset: int
    length: int
    sparse: bool


def list_tar(path: str, on_skip: OnSkip | None = None) -> Iterator[CorpusItem]:
    """The videos of a tar, in its order; id = the member's name, source = `clips.tar!a/b.mp4`.

    Members with other suffixes and hidden ones are passed over. Raises `InputError` for a tar that is
    compressed, damaged or cut short, for absolute or parent paths, and for videos that are links, devices or
    sparse files.
    """
    shown = printable(access.redact(path))
    label = posixpath.basename(shown)
    for member in _members_of(path, shown):
        name = _safe_name(member.name, shown)
        if member.type == tarfile.DIRTYPE:
            continue
        if member.type == tarfile.GNUTYPE_SPARSE:  # where its content ends is written in its content
            raise InputError(f"{shown}: the member {printable(name)} is a sparse file", hint=_REPACK)
        if not has_video_suffix(name) or any(part.startswith(".") for part in name.split("/")):
            if on_skip:
                on_skip(f"{label}!{printable(name)}", "suffix" if not has_video_suffix(name) else "hidden")
            continue
        if member.sparse or member.type not in tarfile.REGULAR_TYPES:
            what = "a sparse file" if member.sparse else "a link or a device, not a file"
            raise InputError(f"{shown}: the member {printable(name)} is {what}", hint=_REPACK)
        check_name(name)
        yield CorpusItem(
            id=printable(name),
            source=f"{label}!{printable(name)}",
            ref=SourceRef(path, member.offset, member.length),
            size_bytes=member.length,
        )


def _members_of(path: str, shown: str) -> Iterator[Member]:
    stat = access.file_stat(path)
    if stat is None:
        raise InputError(f"cannot read {shown}", hint="check the path and its permissions")
    try:
        with access.open_ranges(path) as reader:
            if access.url_protocol(path) is not None:
                reader = _Buffered(reader, stat.size_bytes)
            yield from _Headers(reader, stat.size_bytes, shown)
    except access.READ_ERRORS as error:
        raise InputError(
            f"cannot read {shown}: {access.describe(error)}", hint="check permissions and network"
        ) from error


class _Buffered:
    """Fetches more than a header at a time, so that a request serves many small members."""

    def __init__(self, reader: RangeReader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._start = 0
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self._size - offset)
        if not self._start <= offset <= offset + length <= self._start + len(self._data):
            self._start = offset
            self._data = self._reader.read(offset, min(max(length, _REMOTE_BUFFER), self._size - offset))
        at = offset - self._start
        return self._data[at : at + length]


class _Headers:
    """Iterates over a tar's members. `size` is that of the whole tar in bytes."""

    def __init__(self, reader: RangeReader, size: int, shown: str) -> None:
        self._reader = reader
        self._size = size
        self._shown = shown

    def _damaged(self, problem: str) -> InputError:
        return InputError(f"{self._shown}: {problem}", hint="fetch or pack the tar again")

    def __iter__(self) -> Iterator[Member]:
        self._refuse_compressed()
        offset = 0
        extended: dict[str, str] = {}
        while (header := self._header(offset)) is not None:
            start = offset + _BLOCK
            if header.type in _EXTENDED:
                extended |= self._extended(header, start)
                length = header.size
            else:
                member = self._member(header, start, extended)
                length = 0 if header.type in _WITHOUT_CONTENT else member.length
                extended = {}
                self._check_range(member.name, start, length)
                yield member
            offset = start + -(-length // _BLOCK) * _BLOCK
        if extended:
            raise self._damaged("an extended header has no member after it")
        self._check_trailer(offset)

    def _refuse_compressed(self) -> None:
        if self._size == 0:
            raise self._damaged("the tar is empty")
        head = self._reader.read(0, min(8, self._size))
        for magic, name in _COMPRESSED:
            if head.startswith(magic):
                raise InputError(
                    f"{self._shown} is compressed ({name}): members could not be read in place",
                    hint=f"unpack it first: {name} -d",
                )

    def _header(self, offset: int) -> tarfile.TarInfo | None:
        block = self._reader.read(offset, _BLOCK) if offset + _BLOCK <= self._size else b""
        if len(block) < _BLOCK:
            raise self._damaged(
                f"the tar is cut short: it ends at byte {self._size} without an end mark, expected at {offset} or later"
            )
        if block.count(0) == _BLOCK:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._damaged(f"no valid tar header at byte {offset} ({error})") from error
        if header.size < 0:
            raise self._damaged(f"negative size in the header at byte {offset}")
        return header

    def _check_range(self, name: str, start: int, length: int) -> None:
        if start + length > self._size:
            raise self._damaged(
                f"the tar is cut short: {printable(name)} should end at byte {start + length}, the tar has {self._size}"
            )

    def _extended(self, header: tarfile.TarInfo, start: int) -> dict[str, str]:
        """What a GNU long name or a pax header says about the member after it."""
        if header.size > _EXTENDED_LIMIT:
            raise self._damaged(f"an extended header of {header.size} bytes at byte {start}")
        self._check_range("an extended header", start, header.size)
        data = self._reader.read(start, header.size)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
        if header.type == tarfile.GNUTYPE_LONGLINK:
            return {}
        records = dict(self._pax_records(data, start))
        if header.type == tarfile.XGLTYPE:
            if records.keys() & {"path", "size"} or any(key.startswith("GNU.sparse.") for key in records):
                raise self._damaged("a global header sets the name or size of every member")
            return {}
        return records

    def _pax_records(self, data: bytes, start: int) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(data) and data[at] != 0:
            digits, space, _ = data[at : at + 20].partition(b" ")
            length = int(digits) if digits.isdigit() and space else 0
            record = data[at : at + length]
            key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
            if not (len(digits) + 1 < length == len(record) and equals and record.endswith(b"\n")):
                raise self._damaged(f"malformed extended header at byte {start}")
            yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
            at += length

    def _member(self, header: tarfile.TarInfo, start: int, extended: dict[str, str]) -> Member:
        size = extended.get("size", str(header.size))
        if not (size.isascii() and size.isdecimal() and len(size) < 20):
            raise self._damaged(f"malformed size {printable(size[:40])!r} in the header before byte {start}")
        name = extended.get("GNU.sparse.name", extended.get("path", header.name))
        kind = header.type
        if kind == tarfile.AREGTYPE and name.endswith("/"):
            kind = tarfile.DIRTYPE
        sparse = any(key.startswith("GNU.sparse.") for key in extended)
        return Member(name, kind, start, int(size), sparse)

    def _check_trailer(self, offset: int) -> None:
        """Two tars joined with `cat` would otherwise lose the second without a word."""
        if self._reader.read(offset, _TRAILER).strip(b"\0"):
            raise InputError(
                f"{self._shown}: there is data after the end mark at byte {offset}",
                hint="join tars with `tar --concatenate`, not with cat; or give them as inputs of their own",
            )


_WITHOUT_CONTENT = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE}
)


def _safe_name(name: str, shown: str) -> str:
    """The member's name without `./` and doubled slashes. Raises `InputError` for what leads out of the tar."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise InputError(
            f"{shown}: the member {printable(name[:200])!r} has an absolute or parent path",
            hint="do not trust this tar; if it is yours, pack it again with relative paths",
        )
    return "/".join(part for part in parts if part not in ("", "."))
