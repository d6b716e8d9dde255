"""The write thread: samples into shards, shards into the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from dyntok.errors import RunError, VideoError
from dyntok.records import VideoRow
from dyntok.run.job import ShardJob
from dyntok.run.messages import DoneVideo, FailedVideo, ShardComplete, ShardWork, WriteItem
from dyntok.run.order import Lookahead
from dyntok.run.workers import Channel, RunState
from dyntok.store import ShardWriter, commit_shard, failed_row, open_shard_writer, plan_digest


@dataclass(slots=True)
class _OpenShard:
    writer: ShardWriter
    rows: list[VideoRow] = field(default_factory=list)


class WriteLoop:
    """Owns the writers. Samples of a shard arrive in the order of its plan; two shards may be open at once."""

    def __init__(self, job: ShardJob, state: RunState, lookahead: Lookahead) -> None:
        self._job = job
        self._lookahead = lookahead
        # One sample waiting is enough to keep the writer busy; more would only hold memory.
        self.channel: Channel[WriteItem] = Channel(state, 2)
        self._open: dict[int, _OpenShard] = {}

    def run(self) -> None:
        while (item := self.channel.get()) is not None:
            if isinstance(item, ShardComplete):
                self._commit(item.work)
                continue
            row = item.row if isinstance(item, FailedVideo) else self._write(item)
            self._shard(item.entry.shard).rows.append(row)
            self._job.observer.video(row)

    def close(self) -> None:
        """Drop what is not committed."""
        for shard in self._open.values():
            shard.writer.abort()

    def _shard(self, number: int) -> _OpenShard:
        if number not in self._open:
            self._open[number] = _OpenShard(open_shard_writer(self._job.root, self._job.info, number))
        return self._open[number]

    def _write(self, video: DoneVideo) -> VideoRow:
        entry, info = video.entry, video.assembly.info
        try:
            with self._job.clock.measure("write"):
                return self._shard(entry.shard).writer.add(
                    video.sample,
                    position=entry.position,
                    source=entry.source,
                    attempt=entry.attempt,
                    seconds=info.seconds,
                    decoder=info.decoder,
                )
        except VideoError as error:
            if self._job.fail_fast:
                raise RunError(f"{entry.source}: {error.code}: {error.message}") from error
            return failed_row(entry, video.sample.key, error.code, error.message)
        finally:
            video.assembly.close()

    def _commit(self, work: ShardWork) -> None:
        with self._job.clock.measure("commit"):
            shard = self._shard(work.shard)
            content = shard.writer.finish()
            record = commit_shard(
                self._job.root, self._job.info, content, shard.rows, plan_digest(work.entries)
            )
            del self._open[work.shard]
        self._job.observer.shard(work.shard, sum(file.bytes for file in record.files))
        self._lookahead.committed()
