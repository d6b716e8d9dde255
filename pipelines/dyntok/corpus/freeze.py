"""Writing `plan.parquet`: ids checked, inputs fingerprinted, videos packed into shards; a stream throughout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dyntok.corpus.digests import DigestTable, SeenIds, digests_of
from dyntok.corpus.fingerprints import fingerprint
from dyntok.corpus.items import CorpusItem, check_id, is_plain_id
from dyntok.corpus.plan import FrozenPlan
from dyntok.corpus.pooled import chunks, ordered_map
from dyntok.durable import replaced
from dyntok.errors import InputError
from dyntok.plan_schema import SCHEMA
from dyntok.records import PlanEntry

ROW_GROUP = 16_384
_TELL_EVERY = 64
_MAX_SHARD = 2**31 - 1
_MAX_ATTEMPT = 2**15 - 1
_SUFFIXES = (
    "of a folder, files that end in .mp4, .mkv, .webm and the like are taken; a file that is named is taken whatever "
    "its suffix"
)
_MEND = (
    'give them different ids in a manifest (one {"path": ..., "id": ...} a line in a .jsonl file), '
    "or give the folder above them as one input"
)


class _Row(NamedTuple):
    item: CorpusItem
    attempt: int


class _Packer:
    """Fills shards in order: a new one where the next video would pass the size or the count."""

    def __init__(self, shard_size_bytes: int, max_videos: int, first_shard: int) -> None:
        if shard_size_bytes < 1 or max_videos < 1:
            raise ValueError(f"no packing by {shard_size_bytes} bytes, {max_videos} videos")
        self._limit = shard_size_bytes
        self._max_videos = max_videos
        self._shard = first_shard
        self._position = 0
        self._bytes = 0

    def place(self, estimated_bytes: int) -> tuple[int, int]:
        """Shard and position of the next video."""
        if estimated_bytes < 0:
            raise ValueError(f"a video cannot have {estimated_bytes} bytes")
        full = self._bytes + estimated_bytes > self._limit or self._position == self._max_videos
        if full and self._position:
            self._shard += 1
            self._position = self._bytes = 0
        if self._shard > _MAX_SHARD:
            raise InputError("the plan has too many shards", hint="choose a larger shard size")
        place = self._shard, self._position
        self._position += 1
        self._bytes += estimated_bytes
        return place


def freeze_plan(
    items: Iterable[CorpusItem],
    out: str | os.PathLike[str],
    *,
    estimate_bytes: Callable[[CorpusItem], int],
    shard_size_bytes: int,
    max_videos_per_shard: int = 10_000,
    fingerprint_jobs: int = 8,
    full_fingerprint: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write the plan of a corpus. Equal items and settings give equal bytes.

    Videos are packed greedily in the order of listing: a shard holds at most `shard_size_bytes` by
    `estimate_bytes` (more only where one video alone is larger) and at most `max_videos_per_shard` videos.
    Unreadable ones are in the plan too: they will end as failed.
    `out` is a local path, replaced in one step.
    `on_progress` gets the number of videos fingerprinted so far.

    Raises `InputError` for an empty corpus, for two inputs of one id (it names both) and for ids that are empty,
    longer than 1024 bytes or hold control characters. Nothing is written then.
    """
    packer = _Packer(shard_size_bytes, max_videos_per_shard, first_shard=0)
    with (
        replaced(Path(out), sync=True) as aside,
        _Writer(aside, packer, estimate_bytes, on_progress) as writer,
    ):
        writer.write((_Row(item, 1) for item in items), jobs=fingerprint_jobs, full=full_fingerprint)
        if not writer.videos:
            raise InputError("the inputs hold no video", hint=_SUFFIXES)


def append_entries(
    plan: FrozenPlan,
    items: Iterable[CorpusItem | PlanEntry],
    out: str | os.PathLike[str],
    *,
    estimate_bytes: Callable[[CorpusItem], int],
    shard_size_bytes: int,
    max_videos_per_shard: int = 10_000,
    fingerprint_jobs: int = 8,
    full_fingerprint: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write a plan anew with more rows in new shards after its last one; the old row groups stay as they are.

    A `CorpusItem` is added if its id is not in the plan, so a whole listing can be given (`--extend`). A
    `PlanEntry` of the plan is another attempt (`--retry-failed`): its number is one above the highest of its id,
    and size and fingerprint are taken anew, for the file may have been mended. `on_progress` counts the new rows
    only; without any, `out` holds what `plan` held. `out` may be the plan's own path. Raises as `freeze_plan`.
    """
    table = plan.latest_rows()
    packer = _Packer(shard_size_bytes, max_videos_per_shard, first_shard=plan.shards)
    with (
        replaced(Path(out), sync=True) as aside,
        _Writer(aside, packer, estimate_bytes, on_progress) as writer,
    ):
        for group in plan.groups():
            writer.copy(group)
        writer.write(_additions(plan, table, items), jobs=fingerprint_jobs, full=full_fingerprint)


def _additions(plan: FrozenPlan, table: DigestTable, items: Iterable[CorpusItem | PlanEntry]) -> Iterator[_Row]:
    for batch in chunks(items, ROW_GROUP):
        for item, row in zip(batch, table.find(digests_of([i.id for i in batch])).tolist(), strict=True):
            if isinstance(item, CorpusItem):
                if row < 0:
                    yield _Row(item, 1)
                continue
            if row < 0:
                raise InputError(f"the id {item.id!r} is not in the plan, so it cannot be tried again")
            attempt = plan.entry(row).attempt + 1
            if attempt > _MAX_ATTEMPT:
                raise InputError(f"{item.id!r} was tried {_MAX_ATTEMPT} times", hint="leave it out")
            yield _Row(CorpusItem.looked_at(item.id, item.source, item.ref, item.extra), attempt)


class _Writer:
    """One plan file in the making."""

    def __init__(
        self,
        file: Path,
        packer: _Packer,
        estimate_bytes: Callable[[CorpusItem], int],
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._file = file
        self._packer = packer
        self._estimate = estimate_bytes
        self._on_progress = on_progress
        self._parquet = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._seen = SeenIds()
        self.videos = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._parquet.close()

    def copy(self, group: pa.Table) -> None:
        self._parquet.write_table(group, row_group_size=max(1, group.num_rows))

    def write(self, rows: Iterable[_Row], *, jobs: int, full: bool) -> None:
        """Check, fingerprint, pack and write rows, one row group at a time."""
        for batch in chunks(rows, ROW_GROUP):
            self._check_ids([row.item for row in batch])
            prints: list[str | None] = []
            for value in ordered_map(lambda row: fingerprint(row.item, full=full), batch, jobs=jobs):
                prints.append(value)
                if self._on_progress and (len(prints) % _TELL_EVERY == 0 or len(prints) == len(batch)):
                    self._on_progress(self.videos + len(prints))
            self._write_group(batch, prints)

    def _check_ids(self, items: list[CorpusItem]) -> None:
        ids = [item.id for item in items]
        for item in items:
            if not is_plain_id(item.id):
                check_id(item.id, item.location)
        if len(set(ids)) < len(ids):
            first: dict[str, CorpusItem] = {}
            for item in items:
                holder = first.setdefault(item.id, item)
                if holder is not item:
                    raise _clash(holder, item)
        earlier = self._seen.add(digests_of(ids))
        for number in np.flatnonzero(earlier >= 0).tolist():
            raise self._clash_with_written(items[number], int(earlier[number]))

    def _clash_with_written(self, item: CorpusItem, number: int) -> InputError:
        """Read the first holder of a digest back, so that nobody is accused by a digest alone."""
        self._parquet.close()
        with FrozenPlan.open(self._file) as written:
            entry = written.entry(written.rows - self.videos + number)
        if entry.id != item.id:
            return InputError(
                f"the ids {entry.id!r} and {item.id!r} have one digest and cannot be told apart",
                hint="rename one",
            )
        return _clash(CorpusItem(entry.id, entry.source, entry.ref, entry.size_bytes), item)

    def _write_group(self, rows: list[_Row], prints: list[str | None]) -> None:
        places = [self._packer.place(self._estimate(row.item)) for row in rows]
        items = [row.item for row in rows]
        columns = [
            [shard for shard, _ in places],
            [position for _, position in places],
            [item.id for item in items],
            [item.source for item in items],
            [item.ref.path for item in items],
            [item.ref.offset for item in items],
            [item.ref.length for item in items],
            [item.size_bytes for item in items],
            prints,
            [item.extra for item in items],
            [row.attempt for row in rows],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        self._parquet.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=ROW_GROUP)
        self.videos += len(rows)


def _clash(first: CorpusItem, second: CorpusItem) -> InputError:
    if first.location == second.location:
        return InputError(f"{first.location} is given twice (id {first.id!r})", hint="leave one out")
    return InputError(f"two inputs have the id {first.id!r}: {first.location} and {second.location}", hint=_MEND)
