"""Fingerprints of inputs: cheap, and by content. Modification times never count.

=========================  ===================================================================
`ht1:<size>:<32 hex>`      sha256 over the first and the last 64 KiB (over all of a shorter file)
`etag:<size>:<text>`       an object store's etag or checksum
`full:<size>:<64 hex>`     sha256 of the whole content, as `sha256sum` prints it
=========================  ===================================================================
"""

from __future__ import annotations

import hashlib

from dyntok.corpus import access
from dyntok.corpus.items import CorpusItem
from dyntok.records import SourceRef

_EDGE = 64 * 1024
_STEP = 8 * 1024 * 1024


def fingerprint(item: CorpusItem, *, full: bool = False) -> str | None:
    """The fingerprint of an input, None if it cannot be read. `full` reads the whole content."""
    if item.size_bytes is None:
        return None
    if item.etag is not None and not full:
        return f"etag:{item.size_bytes}:{item.etag}"
    return _by_content(item.ref, item.size_bytes, full=full)


def fingerprint_like(what: CorpusItem | SourceRef, planned: str) -> str | None:
    """The present fingerprint of an input in the scheme of an earlier one, so that the two can be compared.

    Of a `SourceRef` size and etag are asked for. Where the size has changed nothing is read. An object store that gave
    etags and gives none any more is answered in another scheme, which never equals `planned`.
    """
    if isinstance(what, CorpusItem):
        item = what
    elif what.length is not None:
        item = CorpusItem(what.path, what.path, what, what.length)
    else:
        item = CorpusItem.looked_at(what.path, what.path, what)
    scheme = planned.partition(":")[0]
    if scheme == "etag" or item.size_bytes is None:
        return fingerprint(item)
    if planned_size(planned) != item.size_bytes:
        return f"size:{item.size_bytes}"
    return _by_content(item.ref, item.size_bytes, full=scheme == "full")


def planned_etag(planned: str | None) -> str | None:
    """The etag that a fingerprint holds, None if it holds none."""
    scheme, _, rest = (planned or "").partition(":")
    return rest.partition(":")[2] if scheme == "etag" else None


def planned_size(planned: str) -> int:
    """The size in bytes that a fingerprint holds, -1 if it holds none."""
    size = planned.split(":", 2)[1:2]
    return int(size[0]) if size and size[0].isdecimal() else -1


def _by_content(ref: SourceRef, size_bytes: int, *, full: bool) -> str | None:
    start = ref.offset or 0
    if full:
        spans = [(at, min(_STEP, size_bytes - at)) for at in range(0, size_bytes, _STEP)]
    elif size_bytes <= 2 * _EDGE:
        spans = [(0, size_bytes)]
    else:
        spans = [(0, _EDGE), (size_bytes - _EDGE, _EDGE)]
    digest = hashlib.sha256()
    try:
        with access.open_ranges(ref.path) as reader:
            for at, length in spans:
                data = reader.read(start + at, length)
                if len(data) != length:
                    return None  # it is shorter than it was a moment ago
                digest.update(data)
    except access.READ_ERRORS as error:
        access.refuse_silence(ref.path, error)
        return None
    return f"full:{size_bytes}:{digest.hexdigest()}" if full else f"ht1:{size_bytes}:{digest.hexdigest()[:32]}"
