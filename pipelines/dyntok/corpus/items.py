"""One video to be encoded, before it has a place in a shard; what ids may be and what a video is called."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from dyntok.corpus import access
from dyntok.errors import InputError
from dyntok.records import SourceRef

MAX_ID_BYTES = 1024

_SUFFIXES = "3g2 3gp avi f4v flv gif m1v m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf ogg ogm ogv qt ts vob webm wmv"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())

OnSkip = Callable[[str, str], None]
"""Called with what was passed over and why: `hidden`, `suffix`, `special` or `loop`."""

_UNPRINTABLE = frozenset({"Cc", "Zl", "Zp", "Cs"})


@dataclass(frozen=True, slots=True)
class CorpusItem:
    """One video as it was listed.

    `source` is what people read and what stores keep: relative to the input (or as a manifest writes it), never
    with credentials, so that it does not depend on the machine. `ref` is what is opened. `size_bytes` is None
    where the file is missing or cannot be looked at. `etag` comes from object stores only. `extra` is a JSON
    object in text, with sorted keys: a manifest's pass-through columns.
    """

    id: str
    source: str
    ref: SourceRef
    size_bytes: int | None
    etag: str | None = None
    extra: str = "{}"

    @classmethod
    def looked_at(cls, video_id: str, source: str, ref: SourceRef, extra: str = "{}") -> CorpusItem:
        """With size and etag as they are now; the etag of a tar says nothing of a member."""
        size_bytes, etag = access.file_stat(ref.path) or (None, None)
        if size_bytes is not None and ref.offset is not None and ref.length is not None:
            size_bytes, etag = ref.length if ref.offset + ref.length <= size_bytes else None, None
        return cls(video_id, source, ref, size_bytes, etag, extra)

    @property
    def location(self) -> str:
        """Where it is, for messages: more than `source` says, and still without credentials."""
        place = printable(access.redact(self.ref.path))
        if self.ref.offset is not None:
            return f"{place}!{self.source.partition('!')[2]} (at byte {self.ref.offset})"
        return place


def has_video_suffix(name: str) -> bool:
    """Whether a file name ends like that of a video."""
    return posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES


def printable(text: str) -> str:
    """Text with its control characters, line separators and undecodable bytes percent-encoded."""
    if text.isprintable():
        return text
    return "".join(_quoted(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def _quoted(character: str) -> str:
    # surrogateescape gives the file system's bytes back; other lone surrogates are written as they are.
    escaped = 0xDC80 <= ord(character) <= 0xDCFF
    raw = character.encode("utf-8", "surrogateescape" if escaped else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)


def check_name(path: str) -> None:
    """Refuse names that are not valid Unicode: plans and stores hold UTF-8. Raises `InputError`."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the file name is not UTF-8: {printable(path)}", hint="rename the file, for example with convmv"
        ) from error


def is_plain_id(video_id: str) -> bool:
    """Whether an id passes `check_id` at first sight, as nearly all do."""
    return 0 < len(video_id) <= MAX_ID_BYTES // 4 and video_id.isprintable() and not video_id.isspace()


def check_id(video_id: str, where: str) -> None:
    """Raise `InputError` unless `video_id` is 1 to 1024 bytes of UTF-8 without control characters."""
    if is_plain_id(video_id):
        return
    problem = None
    if not video_id.strip():
        problem = "is empty"
    elif any(unicodedata.category(c) in _UNPRINTABLE for c in video_id if not c.isprintable()):
        problem = "holds control characters"
    elif len(video_id.encode("utf-8")) > MAX_ID_BYTES:
        problem = f"is longer than {MAX_ID_BYTES} bytes"
    if problem:
        raise InputError(
            f"{where}: the id {printable(video_id[:80])!r} {problem}",
            hint='give ids in a manifest: one {"path": ..., "id": ...} a line in a .jsonl file',
        )
