"""What `verify` found, and which commands mend it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dyntok.store.names import shard_of_path, shard_of_statistics

FINDING_KINDS: dict[str, str] = {
    "missing": "a file that was written is not there",
    "extra": "a file is there that was not written",
    "digest": "a file's bytes are not those that were written",
    "record": "a completion record, the manifest or dataset.json is damaged, or they contradict each other",
    "plan": "a completion record does not belong to the plan",
    "shard": "a shard cannot be read, or holds something else than its record says",
    "sample": "the parts of a video contradict each other",
    "index": "the index contradicts the completion records",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of damage.

    Attributes:
        kind: one of `FINDING_KINDS`.
        path: the file, relative to the store.
        message: what is wrong with it, and where.
        videos: ids of the videos that the damage touches, in the order of the shard; empty where it is no video's.
    """

    kind: str
    path: str
    message: str
    videos: tuple[str, ...] = ()

    @property
    def video(self) -> str:
        """The first of `videos`, or nothing."""
        return self.videos[0] if self.videos else ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        complete: the store has a manifest; otherwise only what is committed was checked.
        findings: the damage.
        notes: what is no damage but worth knowing (pending shards, uncommitted files).
        shards, done, failed: committed shards and the videos in their records.
        files, bytes: what was read and digested.
    """

    url: str
    complete: bool
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    shards: int
    done: int
    failed: int
    files: int
    bytes: int

    @property
    def ok(self) -> bool:
        """No damage."""
        return not self.findings

    @property
    def repair(self) -> tuple[str, ...]:
        """Commands that mend the damage, one after the other."""
        return repair_commands(self.url, self.findings)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        findings = [
            asdict(finding) | {"video": finding.video, "repair": list(repair_commands(self.url, [finding]))}
            for finding in self.findings
        ]
        return asdict(self) | {"findings": findings, "ok": self.ok, "repair": list(self.repair)}


def repair_commands(url: str, findings: Iterable[Finding]) -> tuple[str, ...]:
    """What has to be run in order to mend what was found: the repair, and what encodes again what it set aside."""
    paths = [finding.path for finding in findings]
    if not paths:
        return ()
    return repair_command(url), *((encode_command(url),) if any(map(_is_encoded_again, paths)) else ())


def _is_encoded_again(path: str) -> bool:
    of_a_shard = shard_of_path(path) is not None and shard_of_statistics(path) is None
    return path == "shards" or of_a_shard


def repair_command(url: str) -> str:
    """`dyntok verify STORE --repair`."""
    return f"dyntok verify {shlex.quote(url)} --repair"


def encode_command(url: str, inputs: str = "") -> str:
    """`dyntok encode --out STORE`, with inputs if they have to be given."""
    return f"dyntok encode {inputs + ' ' if inputs else ''}--out {shlex.quote(url)}"
