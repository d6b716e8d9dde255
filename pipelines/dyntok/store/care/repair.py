"""Mending a damaged store: what can be derived is made anew, the rest is set aside.

Nothing is thrown away: what was damaged goes to `.set-aside/` under the store, and stays until a repair finds the store
sound and complete. What was set aside is missing, so the next `encode` makes it again, to the same bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dyntok.errors import DamageError, StoreError, StoreUnavailableError
from dyntok.records import FileDigest
from dyntok.store.care.findings import Finding, VerifyReport, encode_command
from dyntok.store.care.verification import verify
from dyntok.store.completion import CompletionRecord
from dyntok.store.dataset import DatasetInfo
from dyntok.store.formats import open_shard_reader
from dyntok.store.index_build import build_index
from dyntok.store.manifest import Manifest, write_manifest
from dyntok.store.names import (
    DATASET_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    MARKER_FILE,
    PLAN_FILE,
    SET_ASIDE_FOLDER,
    SHARD_FOLDER,
    record_path,
    shard_name,
    shard_of_path,
    shard_of_record,
    shard_of_statistics,
)
from dyntok.store.plan_rows import plan_rows
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_bytes, digest_file, unsign
from dyntok.store.statistics import gather_statistics, statistics_bytes

_MOST_TRIED_BYTES = 2**13  # all bits of so many are tried in some ten seconds; a usual dataset.json has 2 KB
_FEW_BYTES = 32
INPUTS = "INPUT..."


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done about one file: `what` is `mended`, `made anew`, `set aside`, `removed`, or `left` as it is."""

    path: str
    what: str
    message: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did.

    Attributes:
        before: what `verify` found.
        mended: what was done, by file.
        set_aside: the folder, relative to the store, that now holds what was damaged; empty if nothing had to go.
        commands: what to run next, one after the other.
    """

    url: str
    before: VerifyReport
    mended: tuple[Mended, ...]
    set_aside: str
    commands: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing damaged is left in its place."""
        return not any(item.what == "left" for item in self.mended)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"ok": self.ok, "before": self.before.to_json()}


def repair(url: str) -> RepairReport:
    """Find damage and mend it. Only for the one process that may write to the store.

    Raises:
        StoreError: `url` is no store, or cannot be read or written.
        StoreVersionError: a newer dyntok wrote it.
    """
    return _Repair(url).run(verify(url))


class _Repair:
    def __init__(self, url: str) -> None:
        self._url = url
        self._root = StoreRoot.open(url)
        self._done: list[Mended] = []
        self._folder = ""
        self._manifest: dict[str, FileDigest] = {}
        self._commands: list[str] = []

    def run(self, before: VerifyReport) -> RepairReport:
        if before.ok and before.complete:
            self._forget_set_aside()
        elif not before.ok:
            self._manifest = self._digests()
            found = before.findings
            if any(item.path == DATASET_FILE for item in found) and self._dataset_put_right():
                found = verify(self._url).findings  # without it, no shard could be looked into
            self._mend(found)
        return RepairReport(
            self._root.url, before, tuple(self._done), self._folder, tuple(dict.fromkeys(self._commands))
        )

    def _mend(self, findings: tuple[Finding, ...]) -> None:
        paths = list(dict.fromkeys(finding.path for finding in findings))
        paths = [path for path in paths if not self._gathered_again(path, findings)]
        superfluous = {path for path in paths if _kinds(findings, path) == {"extra"} and shard_of_record(path) is None}
        shards = sorted({n for path in paths if path not in superfluous and (n := shard_of_path(path)) is not None})
        for shard in shards:
            self._drop_shard(shard)
        for path in paths:
            if path in superfluous:
                self._set_aside(path, "it is no part of the store")
            elif shard_of_path(path) is None:
                self._other(path)
        again = bool(shards) or SHARD_FOLDER in paths
        if again and not self._commands:
            self._commands.append(encode_command(self._root.url))
        if self._commands:
            self._set_aside(MANIFEST_FILE, "the store is not complete now")
        elif not self._is_left() and {INDEX_FILE, MANIFEST_FILE} & set(paths):
            self._derive(paths)

    # what is known of the files ------------------------------------------------------------------------------

    def _digests(self) -> dict[str, FileDigest]:
        try:
            manifest = Manifest.load(self._root)
        except DamageError:
            return {}
        return {} if manifest is None else {file.path: file for file in manifest.files}

    def _dataset_put_right(self) -> bool:
        """Whether one bit was wrong in dataset.json, and now is right.

        Disks and memory flip single bits. Whatever else is lost, `encode` makes again; without this file nothing can
        be read, and nobody makes it again.
        """
        data = self._root.read_if_there(DATASET_FILE)
        right = _signed(data) if data is not None and len(data) <= _MOST_TRIED_BYTES else None
        if right is None:
            return False
        self._root.write_atomic(DATASET_FILE, right)
        self._note(DATASET_FILE, "mended", "one bit had changed; its digest proves that it is right again")
        return True

    def _gathered_again(self, path: str, findings: tuple[Finding, ...]) -> bool:
        """Whether `path` is that of a sound shard's statistics, and now is as it was."""
        shard = shard_of_statistics(path)
        if shard is None or any(shard_of_path(f.path) == shard and f.path != path for f in findings):
            return False
        data = _statistics_again(self._root, shard)
        if data is None:
            return False
        self._root.write_atomic(path, data)
        self._note(path, "made anew", "from the shard's similarity maps; its digest is the recorded one")
        return True

    # what is done about them ---------------------------------------------------------------------------------

    def _drop_shard(self, shard: int) -> None:
        """Record first: from then on the shard does not exist."""
        self._set_aside(record_path(shard), "its shard is made again by encode")
        stem = f"{SHARD_FOLDER}/{shard_name(shard)}."
        for path in self._root.list(SHARD_FOLDER):
            if path.startswith(stem):
                self._set_aside(path, "its shard is made again by encode")

    def _other(self, path: str) -> None:
        if path == DATASET_FILE:
            self._note(path, "left", "restore it from a copy, or encode into another --out")
        elif path == PLAN_FILE:
            self._set_aside(path, "encode makes it again from the same inputs, with the settings of dataset.json")
            self._commands.append(encode_command(self._root.url, INPUTS))
        elif path == MARKER_FILE:
            self._set_aside(path, "encode takes it from the model again")
            self._commands.append(encode_command(self._root.url))
        elif path not in (INDEX_FILE, MANIFEST_FILE, SHARD_FOLDER):
            self._note(path, "left", "nothing is known that could mend it")

    def _derive(self, paths: list[str]) -> None:
        """Index and manifest follow from the rest, which is sound."""
        if INDEX_FILE in paths:
            if self._root.exists(INDEX_FILE):
                self._set_aside(INDEX_FILE, "", quiet=True)
            build_index(self._root, plan_rows(self._root))
            self._note(INDEX_FILE, "made anew", "from the plan and the completion records")
        wanted = self._manifest.get(INDEX_FILE)
        if MANIFEST_FILE in paths:
            old = self._root.read_if_there(MANIFEST_FILE, 2**31) or b""
            if old:
                self._set_aside(MANIFEST_FILE, "", quiet=True)
            write_manifest(self._root)
            self._note(MANIFEST_FILE, "made anew", _proof(old, self._root.read_bytes(MANIFEST_FILE, 2**31)))
        elif wanted is not None and digest_file(self._root, INDEX_FILE) != wanted:
            # Another release of the parquet library writes other bytes for the same rows.
            write_manifest(self._root)
            self._note(MANIFEST_FILE, "made anew", "for the index that was made anew")

    def _set_aside(self, path: str, message: str, *, quiet: bool = False) -> None:
        if not self._root.exists(path):
            return
        if not self._folder:
            self._folder = self._next_folder()
        self._root.move(path, f"{self._folder}/{path}")
        if not quiet:
            self._note(path, "set aside", message)

    def _next_folder(self) -> str:
        used = {path.split("/")[1] for path in self._root.list(SET_ASIDE_FOLDER)}
        number = next(n for n in range(1, len(used) + 2) if f"{n:04d}" not in used)
        return f"{SET_ASIDE_FOLDER}/{number:04d}"

    def _forget_set_aside(self) -> None:
        paths = self._root.list(SET_ASIDE_FOLDER)
        if paths:
            self._root.remove_tree(SET_ASIDE_FOLDER)
            self._note(SET_ASIDE_FOLDER, "removed", f"the store is sound; {len(paths)} files had been set aside")

    def _is_left(self) -> bool:
        return any(item.what == "left" for item in self._done)

    def _note(self, path: str, what: str, message: str) -> None:
        self._done.append(Mended(path, what, message))


def _kinds(findings: tuple[Finding, ...], path: str) -> set[str]:
    return {finding.kind for finding in findings if finding.path == path}


def _proof(damaged: bytes, made: bytes) -> str:
    """Whether the new manifest is the damaged one but for the damage: another digest in it would differ throughout."""
    differences = sum(one != other for one, other in zip(damaged, made, strict=False))
    if len(damaged) == len(made) and differences < _FEW_BYTES:
        return "but for the damage it says what the old one said"
    return "from the records and the other files, which are taken to be as they were written"


def _signed(data: bytes) -> bytes | None:
    """dataset.json with one bit put right, by the digest that it carries itself; None if that is not its damage."""
    for position in range(len(data)):
        for bit in range(8):
            trial = bytearray(data)
            trial[position] ^= 1 << bit
            try:
                unsign(bytes(trial), DATASET_FILE, indent=2)
            except DamageError:
                continue
            return bytes(trial)
    return None


def _statistics_again(root: StoreRoot, shard: int) -> bytes | None:
    """A shard's statistics file from its similarity maps; None unless its digest is the recorded one."""
    record = CompletionRecord.load(root, shard)
    if record is None or record.statistics is None:
        return None
    try:
        info = DatasetInfo.load(root)
        data = statistics_bytes(gather_statistics(open_shard_reader(root, info, shard, record), info), shard)
    except StoreUnavailableError:
        raise
    except StoreError:
        return None
    return data if digest_bytes(record.statistics.path, data) == record.statistics else None
