"""Finding out cheaply what is committed: a listing, the first bytes of each record, and the summaries in the logs.

A record is read in full where no summary fits it. Nothing is believed that the records do not confirm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dyntok.corpus import FrozenPlan
from dyntok.corpus.pooled import ordered_map
from dyntok.errors import DamageError, StoreError
from dyntok.run.tell.runlog import log_files
from dyntok.run.tell.summaries import ShardSummary, summarise
from dyntok.store import StoreRoot, plan_digest
from dyntok.store.completion import MAX_RECORD_BYTES
from dyntok.store.names import SHARD_FOLDER, record_path, shard_of_record
from dyntok.store.root import explain_os_error
from dyntok.store.signed import HEAD_BYTES, leading_digest

READ_JOBS = 16
_RECORD_NAME = re.compile(r"shard-[0-9]{6,9}\.json")

Stamp = tuple[int, object]
"""Size of a record, and something that changes with its content: an etag, or inode and time."""


class Survey:
    """Summaries of a store's records. Asked again, it reads only what is new.

    `known`: summaries that the caller has already, for example of the shards that it committed itself.
    """

    def __init__(self, root: StoreRoot, known: Iterable[ShardSummary] = ()) -> None:
        self._root = root
        self._known = {(summary.shard, summary.record): summary for summary in known}
        self._seen: dict[int, tuple[Stamp, ShardSummary]] = {}
        self._log_ends: dict[str, int] = {}

    def summaries(self, stamps: dict[int, Stamp] | None = None) -> list[ShardSummary]:
        """Of every shard that has a sound record, rising. `stamps` spares the listing to a caller that has it."""
        stamps = record_stamps(self._root) if stamps is None else stamps
        self._seen = {shard: (stamp, seen) for shard, (stamp, seen) in self._seen.items() if stamps.get(shard) == stamp}
        new = [shard for shard in stamps if shard not in self._seen]
        if new:
            self._read_logs()
            unknown = []
            for shard, digest in zip(new, _digests(self._root, new), strict=True):
                summary = self._known.get((shard, digest or ""))
                if summary is not None and summary.record_bytes == stamps[shard][0]:
                    self._seen[shard] = stamps[shard], summary
                else:
                    unknown.append(shard)
            for shard, read in zip(unknown, _read_all(self._root, unknown), strict=True):
                if read is not None:
                    self._seen[shard] = stamps[shard], read
        return [self._seen[shard][1] for shard in sorted(self._seen)]

    def _read_logs(self) -> None:
        """Take what was added to the logs since the last time."""
        sizes = self._root.sizes("logs")
        for file in log_files(self._root):
            start, end = self._log_ends.get(file.path, 0), sizes.get(file.path, 0)
            if file.kind != "shards" or end <= start:
                continue
            with suppress(StoreError):  # a log that went away spares nothing, and is no loss
                data = self._root.read_range(file.path, start, end - start)
                whole = data.rfind(b"\n") + 1
                for line in data[:whole].splitlines(keepends=True):
                    summary = ShardSummary.from_line(line)
                    if summary is not None:
                        self._known[summary.shard, summary.record] = summary
                self._log_ends[file.path] = start + whole


def committed(root: StoreRoot, plan: FrozenPlan, shards: Sequence[int]) -> list[ShardSummary]:
    """Summaries of those of some shards that have a valid record for their rows of the plan; every field is checked.

    What a run may keep. Raises StoreError where reading fails.
    """
    there = record_stamps(root)
    found = []
    for shard in shards:
        if shard not in there:
            continue
        path = record_path(shard)
        with suppress(DamageError):
            summary = summarise(root.read_bytes(path, MAX_RECORD_BYTES), shard, root.where(path), strict=True)
            if summary.plan_digest == plan_digest(plan.shard(shard)):
                found.append(summary)
    return found


def fitting(summaries: Iterable[ShardSummary], plan: FrozenPlan) -> list[ShardSummary]:
    """Those that have as many videos as their shard of the plan: a record of another plan does not count."""
    rows = plan.shard_rows()
    first = plan.shard_numbers.start
    return [
        summary
        for summary in summaries
        if summary.shard in plan.shard_numbers and summary.videos == rows[summary.shard - first]
    ]


def record_stamps(root: StoreRoot) -> dict[int, Stamp]:
    """Every completion record's stamp, by rising shard; what lies deeper (Zarr shards) is not looked at."""
    folder = root.local_path(SHARD_FOLDER)
    with explain_os_error(root.where(SHARD_FOLDER), "list"):
        found = _local_stamps(folder) if folder is not None else _remote_stamps(root)
    shards = {shard_of_record(f"{SHARD_FOLDER}/{name}"): stamp for name, stamp in found.items()}
    return {shard: shards[shard] for shard in sorted(s for s in shards if s is not None)}


def _local_stamps(folder: Path) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _RECORD_NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):  # a running store replaces files under us
                    status = entry.stat()
                    found[entry.name] = status.st_size, (status.st_ino, status.st_mtime_ns)
    return found


def _remote_stamps(root: StoreRoot) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    for entry in root.remote_entries(SHARD_FOLDER):
        name = str(entry["name"]).rpartition("/")[2]
        if entry.get("type") == "file" and _RECORD_NAME.fullmatch(name):
            marks = (entry.get(key) for key in ("ETag", "etag", "crc32c", "created", "LastModified"))
            found[name] = int(entry["size"] or 0), next((str(mark) for mark in marks if mark), "")
    return found


def _digests(root: StoreRoot, shards: Sequence[int]) -> list[str | None]:
    """The digest at the head of each record, None where there is none."""
    folder = root.local_path(SHARD_FOLDER)
    if folder is not None:
        return [_local_digest(f"{folder.parent}/{record_path(shard)}") for shard in shards]
    heads = root.remote_heads([record_path(shard) for shard in shards], HEAD_BYTES)
    return [None if head is None else leading_digest(head) for head in heads]


def _local_digest(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return leading_digest(os.read(descriptor, HEAD_BYTES))
    finally:
        os.close(descriptor)


def _read_all(root: StoreRoot, shards: Sequence[int]) -> Iterator[ShardSummary | None]:
    """Summaries from whole records, read ahead; None for one that is damaged or went away."""

    def read(shard: int) -> bytes | None:
        try:
            return root.read_bytes(record_path(shard), MAX_RECORD_BYTES)
        except StoreError:
            return None

    for shard, data in zip(shards, ordered_map(read, shards, jobs=READ_JOBS), strict=True):
        summary = None
        if data is not None:
            with suppress(DamageError):
                summary = summarise(data, shard, root.where(record_path(shard)))
        yield summary
