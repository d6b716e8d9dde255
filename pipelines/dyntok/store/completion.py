"""Completion records: the small JSON that makes a shard count as written."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, get_origin, get_type_hints

from dyntok.errors import DamageError, StoreError
from dyntok.records import FileDigest, PlanEntry, VideoRow
from dyntok.store.dataset import unsign_versioned
from dyntok.store.names import (
    FORMAT_VERSION,
    SHARD_FOLDER,
    check_path,
    record_path,
    shard_name,
    shard_of_record,
    statistics_path,
)
from dyntok.store.root import StoreRoot
from dyntok.store.signed import files_from_json, files_json, sign

MAX_RECORD_BYTES = 2**30
_RECORDS_AT_ONCE = 16
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_ROW_TYPES: dict[str, type | tuple[type, ...]] = {
    name: (int, float) if kind is float else get_origin(kind) or kind for name, kind in get_type_hints(VideoRow).items()
}
_OPTIONAL = {"checksum": ""}
# Records are written with sorted keys, and JSON knows few types: nearly every row has one of these shapes.
_ROW_NAMES = tuple(sorted(_ROW_TYPES))
_ROW_SHAPES = frozenset(
    tuple(seconds if name == "seconds" else _ROW_TYPES[name] for name in _ROW_NAMES) for seconds in (int, float)
)
DONE, FAILED, PENDING = "done", "failed", "pending"


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """What a committed shard holds.

    Attributes:
        shard: its number.
        plan_digest: `plan_digest` of the shard's plan rows, so that another plan's record is not taken for it.
        files: the shard's data files and its statistics, paths relative to the store.
        videos: one row per planned video, done and failed, by position.
    """

    shard: int
    plan_digest: str
    files: tuple[FileDigest, ...]
    videos: tuple[VideoRow, ...]
    format_version: int = FORMAT_VERSION

    @property
    def done(self) -> tuple[VideoRow, ...]:
        """Rows of the videos that the shard holds, by `row`."""
        return tuple(sorted((video for video in self.videos if video.status == DONE), key=lambda v: v.row))

    @property
    def data_files(self) -> tuple[FileDigest, ...]:
        """Those that hold the videos."""
        return tuple(file for file in self.files if file.path != statistics_path(self.shard))

    @property
    def statistics(self) -> FileDigest | None:
        """The shard's statistics; None where it was written without."""
        return next((file for file in self.files if file.path == statistics_path(self.shard)), None)

    def to_bytes(self) -> bytes:
        """The file's content; the same record gives the same bytes.

        Raises StoreError for what JSON cannot hold: a time that is not finite, text that is not Unicode.
        """
        content = {
            "format_version": self.format_version,
            "shard": self.shard,
            "plan_digest": self.plan_digest,
            "files": files_json(self.files),
            "videos": [_row_json(video) for video in self.videos],
        }
        try:
            return sign(content)
        except ValueError as error:
            raise StoreError(f"the record of shard {self.shard} cannot be written: {error}") from error

    def save(self, root: StoreRoot) -> None:
        """Write the record; from then on the shard exists."""
        root.write_atomic(record_path(self.shard), self.to_bytes())

    @classmethod
    def load(cls, root: StoreRoot, shard: int, plan_digest: str | None = None) -> CompletionRecord | None:
        """The record of a shard; None if it is missing, torn, damaged, or of another plan.

        Raises StoreVersionError for a record of a newer format, and StoreError where reading fails.
        """
        data = root.read_if_there(record_path(shard), MAX_RECORD_BYTES)
        if data is None:
            return None
        try:
            record = cls.from_bytes(data, shard, root.where(record_path(shard)))
        except DamageError:
            return None
        return None if plan_digest is not None and record.plan_digest != plan_digest else record

    @classmethod
    def load_strict(cls, root: StoreRoot, shard: int) -> CompletionRecord:
        """The record of a shard. Raises DamageError if it is torn or damaged, StoreError if it is missing."""
        path = record_path(shard)
        return cls.from_bytes(root.read_bytes(path, MAX_RECORD_BYTES), shard, root.where(path))

    @classmethod
    def from_bytes(cls, data: bytes, shard: int, where: str) -> CompletionRecord:
        """The record of a shard from its file's content. Raises DamageError if it is torn or damaged."""
        return cls.from_content(unsign_versioned(data, where), shard, where)

    @classmethod
    def from_content(cls, content: dict[str, Any], shard: int, where: str) -> CompletionRecord:
        """The record of a shard from what `unsign_versioned` gave. Raises DamageError."""
        try:
            record = cls(
                shard=content["shard"],
                plan_digest=content["plan_digest"],
                files=files_from_json(content["files"]),
                videos=tuple(_row_from_json(row) for row in content["videos"]),
            )
            _check_record(record, shard)
        except (KeyError, TypeError, ValueError, StoreError) as error:
            raise DamageError(f"{where} is no valid completion record: {error}") from error
        return record


def plan_digest(entries: Iterable[PlanEntry]) -> str:
    """sha256 (hex) of a shard's plan rows, in order. Where the bytes lie (`ref`) does not count."""
    sha = hashlib.sha256()
    for entry in entries:
        # Canonical JSON of a list, spelt out: this runs for every video whenever a run starts.
        size = "null" if entry.size_bytes is None else entry.size_bytes
        print_ = "null" if entry.fingerprint is None else _quoted(entry.fingerprint)
        row = (
            f"[{entry.shard},{entry.position},{_quoted(entry.id)},{_quoted(entry.source)},"
            f"{size},{print_},{_quoted(entry.extra)},{entry.attempt}]\n"
        )
        sha.update(row.encode())
    return sha.hexdigest()


def completed_shards(root: StoreRoot) -> tuple[int, ...]:
    """Numbers of the shards that have a record file, rising; `CompletionRecord.load` says whether it is valid."""
    shards = (shard_of_record(path) for path in root.list(SHARD_FOLDER))
    return tuple(sorted(shard for shard in shards if shard is not None))


def load_records(root: StoreRoot, shards: Iterable[int]) -> Iterator[tuple[int, CompletionRecord | None]]:
    """Each shard with its record, None where there is no valid one, in the order of `shards`.

    On an object store, where a request takes its time, some are asked for ahead.
    """
    if root.is_local:
        yield from ((shard, CompletionRecord.load(root, shard)) for shard in shards)
        return
    waiting: deque[tuple[int, Future[CompletionRecord | None]]] = deque()
    with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
        try:
            for shard in shards:
                waiting.append((shard, pool.submit(CompletionRecord.load, root, shard)))
                if len(waiting) >= 2 * _RECORDS_AT_ONCE:
                    first, record = waiting.popleft()
                    yield first, record.result()
            for shard, record in waiting:
                yield shard, record.result()
        finally:
            for _, record in waiting:
                record.cancel()


def iter_files(root: StoreRoot) -> Iterator[tuple[int, tuple[FileDigest, ...]]]:
    """Shard and files of every record whose digest fits, by shard; its rows are not looked at."""
    for shard in completed_shards(root):
        where = root.where(record_path(shard))
        with suppress(DamageError):
            content = unsign_versioned(root.read_bytes(record_path(shard), MAX_RECORD_BYTES), where)
            yield shard, CompletionRecord.from_content({**content, "videos": []}, shard, where).files


def failed_row(entry: PlanEntry, key: str, error_class: str, error: str) -> VideoRow:
    """The row of a video that could not be encoded."""
    return VideoRow(
        id=entry.id,
        key=key,
        source=entry.source,
        position=entry.position,
        status=FAILED,
        attempt=entry.attempt,
        error_class=error_class,
        error=error.encode("utf-8", "backslashreplace").decode("utf-8"),
    )


def _row_json(row: VideoRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(VideoRow)}


def _row_from_json(content: dict[str, Any]) -> VideoRow:
    if tuple(content) == _ROW_NAMES and tuple(map(type, content.values())) in _ROW_SHAPES:
        return VideoRow(**content)
    content = _OPTIONAL | content
    if content.keys() != _ROW_TYPES.keys():
        raise ValueError("a video's row has other fields")
    for name, kind in _ROW_TYPES.items():
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise TypeError(f"{name} of a video's row is {content[name]!r}")
    return VideoRow(**content)


def _check_record(record: CompletionRecord, shard: int) -> None:
    if type(record.shard) is not int or record.shard != shard:
        raise ValueError(f"it names shard {record.shard}")
    for file in record.files:
        check_path(file.path)
        stem = f"{SHARD_FOLDER}/{shard_name(shard)}"
        own = (f"{stem}.tar", statistics_path(shard))
        if file.path not in own and not file.path.startswith(f"{stem}.zarr/"):
            raise ValueError(f"{file.path} is no file of this shard")
    if [video.position for video in record.videos] != sorted({video.position for video in record.videos}):
        raise ValueError("positions do not rise")
    if any(video.status not in (DONE, FAILED) for video in record.videos):
        raise ValueError("a video is neither done nor failed")
    if [video.row for video in record.done] != list(range(len(record.done))):
        raise ValueError("rows are not 0, 1, 2, ...")
