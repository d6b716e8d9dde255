"""Manifests: one video a line or row, with `path`, optionally `id`, and other columns that are passed through.

Read as a stream, with a limit on every line before it is decoded.
"""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import json
import math
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dyntok.corpus import access
from dyntok.corpus.items import CorpusItem, check_id, printable
from dyntok.corpus.pooled import ordered_map
from dyntok.errors import InputError
from dyntok.records import SourceRef
from dyntok.urls import is_local

SUFFIXES = (".jsonl", ".csv", ".parquet")

_LINE_LIMIT = 1024 * 1024
_EXTRA_LIMIT = 64 * 1024
_PATH_LIMIT = 16 * 1024
_STAT_JOBS = 16
_PARQUET_ROWS = 1024
_EXAMPLE = 'each line of a .jsonl manifest looks like {"path": "clips/a.mp4", "id": "a"}'


_parse = json.JSONDecoder(parse_constant=lambda _: None).decode
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode

_SIMPLE = frozenset((str, int, bool, type(None)))

_Draft = tuple[str, str, str, str]
"""Id, source, what opens it, and other columns of an item that was not looked for yet."""


class _Row(NamedTuple):
    where: str
    values: Mapping[str, Any]


def list_manifest(path: str) -> Iterator[CorpusItem]:
    """The videos of a `.jsonl`, `.csv` or `.parquet` manifest, in its order.

    Relative paths are relative to the manifest's folder. The id is the `id` column, or the path relative to that
    folder where it lies below, else the path as written. A listed file that does not exist is an item of unknown
    size. Raises `InputError` with the line for what is no valid row.
    """
    shown = printable(access.redact(path))
    base = path.rpartition("/")[0]
    rows = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[suffix_of(path)]
    try:
        with access.open_binary(path) as file:
            drafts = (_draft(row, base) for row in rows(file, shown))
            yield from ordered_map(_item, drafts, jobs=_STAT_JOBS)
    except access.READ_ERRORS as error:
        raise InputError(
            f"cannot read {shown}: {access.describe(error)}", hint="check the path and its permissions"
        ) from error


def suffix_of(path: str) -> str:
    """The suffix of a path or URL in lower case."""
    return posixpath.splitext(access.redact(path))[1].lower()


def _lines(file: BinaryIO, shown: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LINE_LIMIT + 1):
        number += 1
        where = f"{shown}, line {number}"
        if len(line) > _LINE_LIMIT:
            raise InputError(f"{where} is longer than {_LINE_LIMIT} bytes", hint=_EXAMPLE)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8", hint="save the manifest as UTF-8") from error


def _json_rows(file: BinaryIO, shown: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(file, shown), start=1):
        if not line.strip():
            continue
        where = f"{shown}, line {number}"
        try:
            values = _parse(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON: {error}", hint=_EXAMPLE) from error
        if not isinstance(values, dict):
            raise InputError(f"{where} is no JSON object", hint=_EXAMPLE)
        yield _Row(where, values)


def _csv_rows(file: BinaryIO, shown: str) -> Iterator[_Row]:
    reader = csv.reader(_lines(file, shown), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{shown}, line {reader.line_num}"
            if not cells:
                continue
            if header is None:
                header = _header(cells, shown)
            elif len(cells) != len(header):
                raise InputError(f"{where} has {len(cells)} cells, the header {len(header)}", hint="quote commas")
            else:
                yield _Row(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{shown}, line {reader.line_num} is not CSV: {error}", hint="quote it") from error


def _parquet_rows(file: BinaryIO, shown: str) -> Iterator[_Row]:
    try:
        parquet = pq.ParquetFile(file)
        _header(parquet.schema_arrow.names, shown)
        number = 0
        for batch in parquet.iter_batches(batch_size=_PARQUET_ROWS):
            for values in _without_nanoseconds(batch).to_pylist():
                number += 1
                yield _Row(f"{shown}, row {number}", values)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shown} is no readable parquet file: {error}", hint="write it again") from error


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Python's datetime holds microseconds; finer timestamps are cut to them."""
    for i, column in enumerate(batch.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            target = pa.timestamp("us", column.type.tz)
            batch = batch.set_column(i, column.name, pc.cast(batch.column(i), target, safe=False))
    return batch


def _header(names: Iterable[str], shown: str) -> list[str]:
    header = list(names)
    if "path" not in header:
        raise InputError(f"{shown} has no column `path`", hint="name the column that holds the files `path`")
    if len(set(header)) != len(header):
        raise InputError(f"{shown} names a column twice", hint="rename one of them")
    return header


def _draft(row: _Row, base: str) -> _Draft:
    path = row.values.get("path")
    if not isinstance(path, str) or not path:
        raise InputError(f"{row.where} has no `path`", hint=_EXAMPLE)
    if "\0" in path or len(path) > _PATH_LIMIT or not _is_unicode(path):
        raise InputError(f"{row.where}: {printable(path[:80])!r} cannot be a path", hint=_EXAMPLE)
    try:
        opened = _resolve(path, base)
    except InputError as error:
        raise InputError(f"{row.where}: {error.message}", hint=error.hint) from error
    source = printable(path if is_local(path) else access.redact(path))
    video_id = row.values.get("id")
    if video_id is None:
        video_id = _default_id(path, opened, base)
    elif isinstance(video_id, int) and not isinstance(video_id, bool):
        video_id = str(video_id)
    elif not isinstance(video_id, str):
        raise InputError(f"{row.where}: `id` is neither text nor an integer", hint=_EXAMPLE)
    check_id(video_id, row.where)
    return video_id, source, opened, _extra(row)


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text) if not text.isascii() else True


def _resolve(path: str, base: str) -> str:
    """What opens a path of a manifest in folder `base`. Raises `InputError`."""
    if path.startswith("/") or not is_local(path):
        return access.canonical(path)
    if is_local(base):
        return os.path.join(base or "/", path.removeprefix("./"))  # noqa: PTH118
    if ".." in path.split("/") or access.is_http(base):
        raise InputError(f"{printable(path)!r} cannot be found from {access.redact(base)}", hint="write the full URL")
    return f"{base}/{posixpath.normpath(path)}"


def _default_id(path: str, opened: str, base: str) -> str:
    if not path.startswith("/") and is_local(path):
        return printable(posixpath.normpath(path))
    shown = access.redact(opened)
    below = access.redact(base).rstrip("/") + "/"
    return printable(shown.removeprefix(below) if shown.startswith(below) else access.redact(path))


def _item(draft: _Draft) -> CorpusItem:
    video_id, source, opened, extra = draft
    return CorpusItem.looked_at(video_id, source, SourceRef(opened), extra)


def _extra(row: _Row) -> str:
    """The other columns as a JSON object, keys sorted; NaN and infinities are null."""
    values = {key: value for key, value in row.values.items() if key not in ("path", "id")}
    if not values:
        return "{}"
    try:
        simple = all(type(value) in _SIMPLE for value in values.values())
        text = _as_json(values if simple else _plain(values))
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{row.where}: a column cannot be kept as JSON: {error}", hint="drop it") from error
    if size > _EXTRA_LIMIT:
        raise InputError(f"{row.where}: {size} bytes of pass-through columns, at most {_EXTRA_LIMIT}", hint="drop some")
    return text


def _plain(value: Any) -> Any:
    """A value of JSON's types. Dates become ISO text, decimals text, durations seconds, bytes base64."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise ValueError(f"no JSON form for {type(value).__name__}")
