"""What a completion record says, in short: enough for `status` and for the end of a run.

A record is the truth and may be large. Runs log a summary of each (`logs/<run>.shards.jsonl`), which holds the
record's digest; a summary counts for as long as the record at hand begins with that digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dyntok.errors import DamageError
from dyntok.records import VideoRow
from dyntok.store.completion import DONE, FAILED, CompletionRecord
from dyntok.store.dataset import unsign_versioned
from dyntok.store.signed import HEAD_BYTES, leading_digest, sign, unsign

_FAILED_FIELDS = ("id", "key", "source", "position", "attempt", "error_class", "error")


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """Totals of one shard.

    `record`, `record_bytes`: digest and size of its completion record. `nbytes`: of the shard's files. `failed`: its
    failed videos. `recovered`: ids that it holds after earlier attempts had failed.
    """

    shard: int
    record: str
    record_bytes: int
    plan_digest: str
    videos: int
    done: int
    frames: int
    seconds: float
    patches: int
    tokens: dict[str, int]
    nbytes: int
    failed: tuple[VideoRow, ...]
    recovered: tuple[str, ...]

    def to_line(self) -> bytes:
        """As it stands in the log, with a digest of its own."""
        content = asdict(self)
        content["failed"] = [{name: getattr(row, name) for name in _FAILED_FIELDS} for row in self.failed]
        return sign({"summary": content})

    @classmethod
    def from_line(cls, line: bytes) -> ShardSummary | None:
        """None for a line that is torn, damaged or of another version."""
        try:
            content = unsign(line, "a summary")["summary"]
            failed = tuple(VideoRow(status=FAILED, **row) for row in content.pop("failed"))
            return cls(failed=failed, recovered=tuple(content.pop("recovered")), **content)
        except (DamageError, KeyError, TypeError):
            return None


def summarise(data: bytes, shard: int, where: str, *, strict: bool = False) -> ShardSummary:
    """The summary of a completion record's file. `strict` looks at every field, not at its digest alone.

    Raises DamageError if it is torn or damaged.
    """
    content = unsign_versioned(data, where)
    if strict:
        CompletionRecord.from_content(content, shard, where)
    try:
        return _summary(content, shard, data)
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f"{where} is no valid completion record: {error}") from error


def summary_of(record: CompletionRecord) -> ShardSummary:
    """The summary of a record that is at hand, as `summarise` would find it in the store."""
    return _summary(asdict(record), record.shard, record.to_bytes())


def _summary(content: dict[str, Any], shard: int, data: bytes) -> ShardSummary:
    if content["shard"] != shard:
        raise ValueError(f"it names shard {content['shard']}")
    rows = content["videos"]
    done = [row for row in rows if row["status"] == DONE]
    tokens = [row["tokens"] for row in done]
    return ShardSummary(
        shard=shard,
        record=leading_digest(data[:HEAD_BYTES]) or "",
        record_bytes=len(data),
        plan_digest=content["plan_digest"],
        videos=len(rows),
        done=len(done),
        frames=sum([row["frames"] for row in done]),
        seconds=sum([row["seconds"] for row in done]),
        patches=sum([row["patches"] for row in done]),
        tokens={name: sum([counts[name] for counts in tokens]) for name in sorted(tokens[0] if tokens else ())},
        nbytes=sum(file["bytes"] for file in content["files"]),
        failed=tuple(VideoRow(**row) for row in rows if row["status"] == FAILED),
        recovered=tuple(row["id"] for row in done if row["attempt"] > 1),
    )


def latest_failures(summaries: Iterable[ShardSummary]) -> dict[str, tuple[int, VideoRow]]:
    """Videos whose latest attempt failed, by id, with their shard; `summaries` come by rising shard."""
    failed: dict[str, tuple[int, VideoRow]] = {}
    for summary in summaries:
        for row in summary.failed:
            failed[row.id] = summary.shard, row
        for video_id in summary.recovered:
            failed.pop(video_id, None)
    return failed
