"""Fingerprints of inputs: cheap, and by content. Modification times never count.

=========================  ===================================================================
`ht1:<size>:<32 hex>`      sha256 over the first and the last 64 KiB (over all of a shorter file)
`etag:<size>:<text>`       an object store's etag or checksum
`full:<size>:<64 hex>`     sha256 of the whole content, as `sha256sum` prints it
=========================  ===================================================================
"""

from __future__ import annotations

import hashlib
import os
import stat

from dyntok.corpus import access
from dyntok.corpus.items import CorpusItem, is_local
from dyntok.records import SourceRef

_EDGE = 64 * 1024
_STEP = 8 * 1024 * 1024


def fingerprint(
    what: CorpusItem | SourceRef,
    size_bytes: int | None = None,
    etag: str | None = None,
    *,
    full: bool = False,
) -> str | None:
    """The fingerprint of an input, None if it cannot be read.

    `size_bytes` and `etag` go with a `SourceRef`; left out, the file is asked for them. An etag is taken for
    whole objects only: a tar's etag says nothing of one member. `full` reads the whole content.
    """
    ref, size_bytes, etag = _facts(what, size_bytes, etag)
    if size_bytes is None:
        return None
    if etag is not None and not full:
        return f"etag:{size_bytes}:{etag}"
    return _by_content(ref, size_bytes, full=full)


def fingerprint_like(what: CorpusItem | SourceRef, planned: str) -> str | None:
    """The present fingerprint of an input in the scheme of an earlier one, so that the two can be compared.

    Where the size has changed nothing is read. An object store that gave etags and gives none any more is
    answered in another scheme, which never equals `planned`.
    """
    ref, size_bytes, etag = _facts(what, None, None)
    if size_bytes is None:
        return None
    scheme = planned.partition(":")[0]
    if scheme == "etag":
        return fingerprint(ref, size_bytes, etag)
    if planned_size(planned) != size_bytes:
        return f"size:{size_bytes}"
    return _by_content(ref, size_bytes, full=scheme == "full")


def planned_etag(planned: str | None) -> str | None:
    """The etag that a fingerprint holds, None if it holds none."""
    scheme, _, rest = (planned or "").partition(":")
    return rest.partition(":")[2] if scheme == "etag" else None


def planned_size(planned: str) -> int:
    """The size in bytes that a fingerprint holds, -1 if it holds none."""
    size = planned.split(":", 2)[1:2]
    return int(size[0]) if size and size[0].isdecimal() else -1


def _facts(
    what: CorpusItem | SourceRef, size_bytes: int | None, etag: str | None
) -> tuple[SourceRef, int | None, str | None]:
    if isinstance(what, CorpusItem):
        return what.ref, what.size_bytes, what.etag
    if what.length is not None:
        return what, what.length, None
    if size_bytes is None:
        stat = access.file_stat(what.path)
        return (what, stat.size_bytes, stat.etag) if stat else (what, None, None)
    return what, size_bytes, etag


def _by_content(ref: SourceRef, size_bytes: int, *, full: bool) -> str | None:
    start = ref.offset or 0
    if full:
        spans = [(at, min(_STEP, size_bytes - at)) for at in range(0, size_bytes, _STEP)]
    elif size_bytes <= 2 * _EDGE:
        spans = [(0, size_bytes)]
    else:
        spans = [(0, _EDGE), (size_bytes - _EDGE, _EDGE)]
    spans = [(start + at, length) for at, length in spans]
    try:
        digest = _digest_local(ref.path, spans) if is_local(ref.path) else _digest(ref.path, spans)
    except access.READ_ERRORS as error:
        access.refuse_silence(ref.path, error)
        return None
    if digest is None:
        return None
    return f"full:{size_bytes}:{digest}" if full else f"ht1:{size_bytes}:{digest[:32]}"


def _digest(path: str, spans: list[tuple[int, int]]) -> str | None:
    """sha256 (hex) over stretches of a file; None if it is shorter than it was a moment ago."""
    digest = hashlib.sha256()
    with access.open_ranges(path) as reader:
        for at, length in spans:
            data = reader.read(at, length)
            if len(data) != length:
                return None
            digest.update(data)
    return digest.hexdigest()


def _digest_local(path: str, spans: list[tuple[int, int]]) -> str | None:
    """`_digest` of a local file with nothing in between: this is done for every video of a corpus."""
    # A named pipe that took a file's place must not make us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        digest = hashlib.sha256()
        for at, length in spans:
            data = os.pread(descriptor, length, at)
            digest.update(data)
            left = length - len(data)
            while left:  # a signal, or a file system that gives less at a time
                data = os.pread(descriptor, left, at + length - left)
                if not data:
                    return None
                digest.update(data)
                left -= len(data)
        return digest.hexdigest()
    finally:
        os.close(descriptor)
