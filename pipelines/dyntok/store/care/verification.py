"""Finding damage: every digest anew, missing and extra files, and whether all parts of a store agree."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from dyntok.errors import DamageError, StoreError, StoreUnavailableError, StoreVersionError
from dyntok.records import FileDigest
from dyntok.store.care.findings import Finding, VerifyReport
from dyntok.store.care.locating import Place, digest_tar, place_in_zarr
from dyntok.store.care.shard_checks import shard_problems
from dyntok.store.completion import DONE, FAILED, CompletionRecord, load_records, plan_digest
from dyntok.store.dataset import DatasetInfo
from dyntok.store.index import StoreIndex, index_schema
from dyntok.store.index_build import index_batches
from dyntok.store.manifest import Manifest
from dyntok.store.names import (
    DATASET_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    SET_ASIDE_FOLDER,
    SHARD_FOLDER,
    is_ignored,
    record_path,
    shard_data_path,
    shard_of_record,
)
from dyntok.store.plan_rows import plan_rows
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_file

Progress = Callable[[int, int], None]


def verify(url: str, *, jobs: int = 1, deep: bool = True, on_progress: Progress | None = None) -> VerifyReport:
    """Check a store against every digest it carries, and its parts against each other.

    An incomplete store (running or interrupted) is checked as far as it is committed.

    Args:
        url: folder or fsspec URL.
        jobs: threads; a shard is checked by one.
        deep: also look into the shards, not only at their digests.
        on_progress: called with (bytes checked, bytes in all) now and then, from any thread but one at a time.

    Raises:
        StoreError: `url` is no store, or cannot be read at all.
        StoreVersionError: a newer dyntok wrote it.
    """
    return _Verification(StoreRoot.open(url), deep, on_progress).run(jobs)


class _Verification:
    """Collects findings of one `verify`."""

    def __init__(self, root: StoreRoot, deep: bool, on_progress: Progress | None) -> None:
        self._root = root
        self._deep = deep
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._findings: list[Finding] = []
        self._notes: list[str] = []
        self._digests: dict[str, FileDigest] = {}
        self._bytes_done = 0
        self._bytes_total = 0

    def run(self, jobs: int) -> VerifyReport:
        sizes = {path: size for path, size in self._root.sizes().items() if not is_ignored(path)}
        complete = MANIFEST_FILE in sizes
        info = self._dataset(sizes)
        manifest = self._load(MANIFEST_FILE, lambda: Manifest.load(self._root))
        numbers = sorted(shard for shard in map(shard_of_record, sizes) if shard is not None)
        records = self._records(numbers)
        self._bytes_total = sum(sizes.values())
        if info is not None:
            with ThreadPoolExecutor(max(1, jobs)) as pool:
                done = [pool.submit(self._shard, info, record) for record in records.values()]
                for future in done:
                    future.result()
        if complete:
            self._digest_all(sizes)
            self._against_manifest(sizes, manifest)
        elif info is not None:
            self._uncommitted(sizes, info, records)
        self._plan(sizes, records, complete)
        if complete and info is not None and not self._findings:
            self._index(info)
        aside = len(self._root.list(SET_ASIDE_FOLDER))
        if aside and complete and not self._findings:
            self._notes.append(
                f"{SET_ASIDE_FOLDER} holds {aside} files that repairs took out of the way; --repair removes them now"
            )
        rows = [row for record in records.values() for row in record.videos]
        return VerifyReport(
            url=self._root.url,
            complete=complete,
            findings=tuple(sorted(self._findings, key=lambda f: (f.path, f.videos, f.kind, f.message))),
            notes=tuple(self._notes),
            shards=len(records),
            done=sum(row.status == DONE for row in rows),
            failed=sum(row.status == FAILED for row in rows),
            files=len(self._digests),
            bytes=self._bytes_done,
        )

    def _find(self, kind: str, path: str, message: str, videos: tuple[str, ...] = ()) -> None:
        with self._lock:
            self._findings.append(Finding(kind, path, message, videos))

    def _load(self, path: str, load: Callable[[], Any]) -> Any:
        """What `load` returns; damage becomes a finding and None."""
        try:
            return load()
        except StoreVersionError:
            raise
        except DamageError as error:
            self._find("record", path, error.message)
            return None

    def _dataset(self, sizes: dict[str, int]) -> DatasetInfo | None:
        if DATASET_FILE not in sizes and MANIFEST_FILE in sizes:
            self._find("missing", DATASET_FILE, "dataset.json is missing")
            return None
        info: DatasetInfo | None = self._load(DATASET_FILE, lambda: DatasetInfo.load(self._root))
        return info

    def _records(self, shards: Iterable[int]) -> dict[int, CompletionRecord]:
        records = {}
        for shard, record in load_records(self._root, shards):
            if record is None:  # again, to see what is wrong with it
                load = partial(CompletionRecord.load_strict, self._root, shard)
                record = self._load(record_path(shard), load)
            if record is not None:
                records[shard] = record
        return records

    # shards -------------------------------------------------------------------------------------------------

    def _shard(self, info: DatasetInfo, record: CompletionRecord) -> None:
        """Digest a shard's files, then look inside while they are still in the page cache."""
        folder = shard_data_path(record.shard, info.shard_format)
        if any(file.path != folder and not file.path.startswith(folder + "/") for file in record.data_files):
            self._find("record", record_path(record.shard), "the record names files of another format")
            return
        for file in record.data_files:
            self._check_file(info, record, file)
        # Statistics are of no video; whether they are right is a matter of looking into the shard.
        counts = record.statistics
        if counts is not None and self._digest(counts.path) not in (None, counts):
            self._find("digest", counts.path, f"{counts.path} is damaged: its sha256 is not the recorded one")
        if info.shard_format == "zarr":
            known = {file.path for file in record.files}
            for path in self._root.sizes(folder):
                if path not in known:
                    self._find("extra", path, f"{path} does not belong to the shard")
        if self._deep:
            for kind, video, message in shard_problems(self._root, info, record):
                self._find(kind, folder, message, (video,) if video else ())

    def _check_file(self, info: DatasetInfo, record: CompletionRecord, file: FileDigest) -> None:
        """Digest a file of a shard; if it is damaged, say where, and which videos that touches."""
        tar = info.shard_format == "webdataset"
        places: list[Place] = []

        def read() -> FileDigest:
            if not tar:
                return digest_file(self._root, file.path)
            found, where = digest_tar(self._root.chunks(file.path), record, file)
            places.extend(where)
            return found

        found = self._digest(file.path, tuple(row.id for row in record.done), read)
        if found is None or found == file:
            return
        if not tar:
            places.extend(place_in_zarr(self._root, info, record, file.path))
        for place in places or [Place("its sha256 is not the recorded one", ())]:
            self._find("digest", file.path, f"{file.path} is damaged: {place.what}", place.videos)

    def _digest(
        self, path: str, videos: tuple[str, ...] = (), read: Callable[[], FileDigest] | None = None
    ) -> FileDigest | None:
        """Digest a file once; a missing or unreadable one becomes a finding, of all its videos."""
        try:
            digest = read() if read is not None else digest_file(self._root, path)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            self._find("missing", path, error.message, videos)
            return None
        with self._lock:
            self._digests[path] = digest
            self._bytes_done += digest.bytes
            if self._on_progress is not None:
                self._on_progress(self._bytes_done, max(self._bytes_done, self._bytes_total))
        return digest

    def _uncommitted(self, sizes: dict[str, int], info: DatasetInfo, records: dict[int, CompletionRecord]) -> None:
        """In an incomplete store, data without a record are no damage: the next run replaces them."""
        owned = {shard_data_path(shard, info.shard_format) for shard in records}
        owned |= {file.path for record in records.values() if (file := record.statistics) is not None}
        loose = {
            "/".join(path.split("/")[:2])
            for path in sizes
            if path.startswith(SHARD_FOLDER + "/") and shard_of_record(path) is None
        }
        self._notes += [f"{path} is not committed yet" for path in sorted(loose - owned)]

    # the whole ----------------------------------------------------------------------------------------------

    def _digest_all(self, sizes: dict[str, int]) -> None:
        for path in sizes:
            if path != MANIFEST_FILE and path not in self._digests:
                self._digest(path)

    def _against_manifest(self, sizes: dict[str, int], manifest: Manifest | None) -> None:
        if manifest is None:
            return
        expected = {file.path: file for file in manifest.files}
        already = {finding.path for finding in self._findings}
        for path, file in expected.items():
            if path not in sizes:
                if path not in already:
                    self._find("missing", path, f"{path} is missing")
            elif path in self._digests and self._digests[path] != file and path not in already:
                self._find("digest", path, f"{path} is damaged: its sha256 is not the manifest's")
        for path in sizes:
            if path not in expected and path != MANIFEST_FILE and path not in already:
                self._find("extra", path, f"{path} is not in the manifest")

    def _plan(self, sizes: dict[str, int], records: dict[int, CompletionRecord], complete: bool) -> None:
        """Every planned shard has a record of its own rows, and no other shard exists."""
        if PLAN_FILE not in sizes:
            if not complete:
                self._notes.append("incomplete: the store has no plan yet")
            return
        if any(finding.path == PLAN_FILE for finding in self._findings):
            return  # what it says of the records is worth nothing
        pending = 0
        planned = set()
        damaged = {f.path for f in self._findings if shard_of_record(f.path) is not None and not f.videos}
        videos: dict[str, tuple[str, ...]] = {}
        try:
            for shard, group in groupby(plan_rows(self._root), key=lambda entry: entry.shard):
                entries = list(group)
                digest = plan_digest(entries)
                planned.add(shard)
                if record_path(shard) in damaged:
                    videos[record_path(shard)] = tuple(entry.id for entry in entries)
                pending += shard not in records
                if shard in records and records[shard].plan_digest != digest:
                    message = f"the record of shard {shard} is of another plan"
                    self._find("plan", record_path(shard), message, tuple(entry.id for entry in entries))
        except DamageError as error:
            self._find("plan", PLAN_FILE, error.message)
            return
        # Without its record, a shard's videos are not there.
        self._findings = [replace(f, videos=f.videos or videos.get(f.path, ())) for f in self._findings]
        for shard in records.keys() - planned:
            self._find("extra", record_path(shard), f"shard {shard} is not in the plan")
        if not complete:
            self._notes.append(f"incomplete: {pending} of {len(planned)} shards are not written yet")
        elif pending and not self._findings:
            self._find("missing", SHARD_FOLDER, f"{pending} planned shards have no record")

    def _index(self, info: DatasetInfo) -> None:
        """The index must hold what the plan and the records give."""
        schema = index_schema(info.thresholds)
        try:
            index = StoreIndex.open(self._root)
            if index.schema != schema:
                raise DamageError(f"{INDEX_FILE} has other columns than the store's thresholds give")
            with tempfile.TemporaryDirectory(prefix="dyntok-") as folder:
                expected = index_batches(self._root, plan_rows(self._root), schema, Path(folder, "rows"))
                for want, have in zip_longest(expected, index.batches()):
                    message = _difference(want, have)
                    if message:
                        self._find("index", INDEX_FILE, message)
                        return
        except StoreError as error:
            self._find("index", INDEX_FILE, error.message)


def _difference(want: pa.RecordBatch | None, have: pa.RecordBatch | None) -> str | None:
    """The first difference between expected and stored rows of the index."""
    if want is None or have is None or want.num_rows != have.num_rows:
        return f"{INDEX_FILE} has another number of rows than the plan"
    for name in want.schema.names:
        if not want.column(name).equals(have.column(name)):
            return f"the column {name} of {INDEX_FILE} contradicts the completion records"
    return None
