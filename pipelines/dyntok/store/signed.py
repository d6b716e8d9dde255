"""Canonical JSON that carries its own digest, and digests of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from dyntok.errors import DamageError
from dyntok.records import FileDigest
from dyntok.store.root import StoreRoot

DIGEST_KEY = "digest"
_CHUNK_BYTES = 2**20
_OPENING = b'{"digest":"'
HEAD_BYTES = len(_OPENING) + 64 + 1


def canonical_json(content: Any, *, indent: int | None = None) -> bytes:
    """Sorted keys, UTF-8, no NaN; compact unless `indent` is given. The same content gives the same bytes.

    Raises ValueError for NaN, infinities and text that is not Unicode (lone surrogates).
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        content, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return text.encode("utf-8")


def content_digest(content: dict[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of `content`."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def sign(content: dict[str, Any], *, indent: int | None = None) -> bytes:
    """JSON file of `content` with a `digest` member: sha256 of the canonical JSON of all other members."""
    signed = {**content, DIGEST_KEY: content_digest(content)}
    return canonical_json(signed, indent=indent) + b"\n"


def unsign(data: bytes, where: str, *, indent: int | None = None) -> dict[str, Any]:
    """Content of a file that `sign` wrote. Not one byte may differ, white space included.

    Raises DamageError, naming `where`.
    """
    if indent is None and (intact := unsign_compact(data)) is not None:
        return intact
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise DamageError(f"{where} is not a JSON object")
        digest = content.pop(DIGEST_KEY, None)
        # Nearly all damage shows in the digest; to write the file anew takes several times as long.
        whole = digest == content_digest(content) and sign(content, indent=indent) == data
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{where} is torn or damaged: {error}") from error
    if not whole:
        raise DamageError(f"{where} is damaged: its digest does not match its content")
    return cast("dict[str, Any]", content)


def leading_digest(head: bytes) -> str | None:
    """The digest with which a compact signed file begins, from its first `HEAD_BYTES` bytes; None if there is none."""
    if not head.startswith(_OPENING) or head[HEAD_BYTES - 1 : HEAD_BYTES] != b'"':
        return None
    return head[len(_OPENING) : HEAD_BYTES - 1].decode("ascii", "replace")


def unsign_compact(data: bytes) -> dict[str, Any] | None:
    """`unsign` for a compact file that begins with its digest, and is whole; None for all others.

    The digest is that of the bytes behind it, so nothing has to be written anew to compare, which for large files
    takes most of the time.
    """
    digest = leading_digest(data[:HEAD_BYTES])
    if digest is None or data[HEAD_BYTES : HEAD_BYTES + 1] != b"," or data[-1:] != b"\n":
        return None
    sha = hashlib.sha256(b"{")
    sha.update(memoryview(data)[HEAD_BYTES + 1 : -1])
    if sha.hexdigest() != digest:
        return None
    # Twice as fast as json, on the hundreds of megabytes of a store's records.
    from pydantic_core import from_json

    try:
        content = from_json(data)
    except ValueError:
        return None
    content.pop(DIGEST_KEY, None)
    return cast("dict[str, Any]", content)


def digest_bytes(path: str, data: bytes | bytearray | memoryview) -> FileDigest:
    """Digest of a file whose content is at hand."""
    return FileDigest(path, len(data), hashlib.sha256(data).hexdigest())


def digest_file(root: StoreRoot, path: str) -> FileDigest:
    """Size and sha256 of a file of the store, read in pieces."""
    return _digest(root.chunks(path), path)


def digest_path(file: Path, path: str) -> FileDigest:
    """Size and sha256 of a local file that will be `path` in the store."""
    with file.open("rb") as handle:
        return _digest(iter(lambda: handle.read(_CHUNK_BYTES), b""), path)


def _digest(chunks: Iterable[bytes], path: str) -> FileDigest:
    sha = hashlib.sha256()
    size = 0
    for chunk in chunks:
        sha.update(chunk)
        size += len(chunk)
    return FileDigest(path, size, sha.hexdigest())


def files_json(files: Iterable[FileDigest]) -> list[dict[str, Any]]:
    """Digests as JSON."""
    return [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files]


def files_from_json(items: Any) -> tuple[FileDigest, ...]:
    """Inverse of `files_json`. Raises KeyError, TypeError or ValueError for anything else."""
    files = tuple(FileDigest(item["path"], item["bytes"], item["sha256"]) for item in items)
    for file in files:
        if not (isinstance(file.path, str) and type(file.bytes) is int and isinstance(file.sha256, str)):
            raise TypeError("a file entry has a path, bytes and a sha256")
    return files
