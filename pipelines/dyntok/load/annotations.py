"""Annotations joined to videos by id: rows of a jsonl, JSON or Parquet file, read when they are needed."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dyntok.errors import InputError
from dyntok.objects import PrivateFolder, Remote
from dyntok.urls import url_protocol

KEYS = ("video", "video_id", "id")
_MAX_LINE_BYTES = 2**26
_CHANGED = "put the file back as it was, or begin anew with the new one: a stream goes on with what it was made with"
# Other processes may read what was pickled after the annotations here are gone: until this one ends.
_KEPT: list[PrivateFolder] = []


class Annotations(Protocol):
    """Rows of annotations, each about one video; several rows may be about the same one. Can be pickled."""

    @property
    def where(self) -> str:
        """Where they come from, for messages."""

    @property
    def digest(self) -> str:
        """Identifies the content."""

    @property
    def ids(self) -> pa.Array:
        """Id of each row's video, as text."""

    def row(self, number: int) -> dict[str, Any]:
        """One row."""


def open_annotations(source: str | os.PathLike[str] | Sequence[dict[str, Any]], key: str | None = None) -> Annotations:
    """Annotations from a file (`.jsonl`, `.json` with one list, `.parquet`; a path or an fsspec URL) or from rows.

    Args:
        key: the field that holds the video's id; by default the first row's `video`, `video_id` or `id`.

    Raises:
        InputError: the file cannot be read, a line is no object, or a row has no id; it names the line.
    """
    if not isinstance(source, str | os.PathLike):
        rows = list(source)
        return _RowAnnotations(rows, [_id_of(row, key, f"row {at} of the annotations") for at, row in enumerate(rows)])
    path = os.fspath(source)
    suffix = Path(path.partition("?")[0]).suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return _ParquetAnnotations(path, key)
        if suffix in (".jsonl", ".ndjson"):
            return _LineAnnotations(path, path, key)
        if suffix == ".json":
            return _LineAnnotations(path, _as_lines(path), key)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the annotations in {path}: {error}") from error
    raise InputError(f"{path} is no file of annotations", hint="use .jsonl, .json or .parquet")


class _RowAnnotations:
    def __init__(self, rows: list[dict[str, Any]], ids: list[str]) -> None:
        self.where = "the annotations"
        self.ids = pa.array(ids, pa.string())
        self.digest = xxhash.xxh3_64_hexdigest(json.dumps(rows, sort_keys=True, default=str).encode())
        self._rows = rows

    def row(self, number: int) -> dict[str, Any]:
        return dict(self._rows[number])


class _LineAnnotations:
    """A jsonl file: ids, line offsets and a hash of each line are in memory, the lines are not.

    Nothing stays open, so that no position or connection is shared over a fork; what is read must have its hash, so
    that a file that changed gives no other row.
    """

    def __init__(self, name: str, path: str, key: str | None) -> None:
        self.where = name
        self._path = str(Path(path).absolute()) if _is_local(path) else path
        ids: list[pa.Array] = []
        batch: list[str] = []
        offsets, hashes = array("q", [0]), array("Q")
        whole = xxhash.xxh3_64()
        with _open(path) as file:
            for number, line in enumerate(_lines(file, name), 1):
                whole.update(line)
                offsets.append(offsets[-1] + len(line))
                hashes.append(xxhash.xxh3_64_intdigest(line))
                where = f"line {number} of {name}"
                batch.append(_id_of(_parse(line, where), key, where))
                if len(batch) == 65536:
                    ids.append(pa.array(batch, pa.string()))
                    batch = []
        self.ids = pa.concat_arrays([*ids, pa.array(batch, pa.string())])
        self.digest = whole.hexdigest()
        self._offsets, self._hashes = np.asarray(offsets), np.asarray(hashes)

    def row(self, number: int) -> dict[str, Any]:
        where = f"line {number + 1} of {self.where}"
        begin, end = (int(edge) for edge in self._offsets[number : number + 2])
        try:
            line = _read(self._path, begin, end - begin)
        except OSError as error:
            raise InputError(f"cannot read {where}: {error}", hint=_CHANGED) from error
        if xxhash.xxh3_64_intdigest(line) != self._hashes[number]:
            raise InputError(f"{where} is not what it was when the file was opened", hint=_CHANGED)
        return _parse(line, where)


class _ParquetAnnotations:
    """A Parquet file, held as an Arrow table: no Python object a row."""

    def __init__(self, path: str, key: str | None) -> None:
        self.where = path
        with _open(path) as file:
            self._table: pa.Table = pq.read_table(file).combine_chunks()
        name = key or next((name for name in KEYS if name in self._table.column_names), None)
        if name is None or name not in self._table.column_names:
            raise _no_id(f"{path} has no column", key)
        column = self._table.column(name).cast(pa.string()).combine_chunks()
        if column.null_count:
            raise InputError(f"{path} has {column.null_count} rows without a {name}")
        self.ids = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
        hasher = xxhash.xxh3_64()
        for batch in self._table.to_batches():
            hasher.update(batch.serialize())
        self.digest = hasher.hexdigest()

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        return row


def _as_lines(path: str) -> str:
    """A temporary jsonl of a file that holds one JSON list, as LLaVA's annotations come. Gone with the process."""
    with _open(path) as file:
        try:
            rows = json.load(file)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} holds no JSON list", hint="one object a line goes into a .jsonl file")
    _KEPT.append(PrivateFolder())
    target = _KEPT[-1].path / "rows.jsonl"
    with target.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return str(target)


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, fsspec.open(path, "rb").open())


def _read(path: str, begin: int, length: int) -> bytes:
    if _is_local(path):
        with Path(path).open("rb") as file:
            file.seek(begin)
            return file.read(length)
    remote, inner = Remote.open(path)
    return remote.read(inner, begin, length)


def _is_local(path: str) -> bool:
    return url_protocol(path) is None and "::" not in path


def _lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    number = 0
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) == _MAX_LINE_BYTES:
            raise InputError(f"line {number} of {where} is longer than {_MAX_LINE_BYTES >> 20} MiB")
        yield line


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is no JSON object")
    return row


def _id_of(row: dict[str, Any], key: str | None, where: str) -> str:
    value = next((row[name] for name in ((key,) if key else KEYS) if row.get(name) is not None), None)
    if not isinstance(value, str | int):
        raise _no_id(f"{where} has no field", key)
    return str(value)


def _no_id(where: str, key: str | None) -> InputError:
    named = key or " or ".join(KEYS)
    return InputError(f"{where} {named} with the video's id", hint="name the field that holds it with key=")
