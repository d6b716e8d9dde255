"""The write thread: samples into shards. And the commit thread: finished shards into the store.

They are two, since an upload may take as long as encoding the next shard.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dyntok.errors import RunError, VideoError
from dyntok.records import VideoRow
from dyntok.run.shard.channels import Channel, RunState
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import DoneVideo, DroppedVideo, ShardWork, WriteItem
from dyntok.run.shard.order import Lookahead
from dyntok.run.tell.summaries import summary_of
from dyntok.store import ShardWriter, commit_shard, failed_row, open_shard_writer, plan_digest


@dataclass(slots=True)
class _OpenShard:
    writer: ShardWriter
    rows: list[VideoRow] = field(default_factory=list)


class WriteLoop:
    """Owns the writers. Samples of a shard arrive in the order of its plan; two shards may be open at once.

    Finished shards are committed one by one, in order, while the next is written. `run` and `commit` are the bodies of
    the two threads.
    """

    def __init__(self, job: ShardJob, state: RunState, lookahead: Lookahead) -> None:
        self._job = job
        self._state = state
        self._lookahead = lookahead
        # One sample waiting is enough to keep the writer busy; more would only hold memory.
        self.channel: Channel[WriteItem] = Channel(state, 2)
        self._open: dict[int, _OpenShard] = {}
        self._complete: Channel[tuple[ShardWork, _OpenShard] | None] = Channel(state, 1)
        self._uncommitted: list[_OpenShard] = []

    def run(self) -> None:
        while (item := self.channel.get()) is not None:
            if isinstance(item, ShardWork):
                shard = self._shard(item.shard)
                self._uncommitted.append(shard)
                del self._open[item.shard]
                self._complete.put((item, shard))
                continue
            row = item.row if isinstance(item, DroppedVideo) else self._write(item)
            self._shard(item.entry.shard).rows.append(row)
            self._job.observer.video(row)
        self._complete.put(None)

    def commit(self) -> None:
        while (item := self._complete.get()) is not None:
            self._commit(*item)

    def close(self) -> None:
        """Drop what is not committed, once both threads have ended."""
        for shard in (*self._open.values(), *self._uncommitted):
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
            if self._job.config.fail_fast:
                raise RunError(f"{entry.source}: {error.code}: {error.message}") from error
            return failed_row(entry, video.sample.key, error.code, error.message)
        finally:
            video.assembly.close()

    def _commit(self, work: ShardWork, shard: _OpenShard) -> None:
        with self._job.clock.measure("commit"):
            content = shard.writer.finish()
            record = commit_shard(
                self._job.root,
                self._job.info,
                content,
                shard.rows,
                plan_digest(work.entries),
                stop=self._state.stop.is_set,
            )
            self._uncommitted.remove(shard)
        self._job.observer.committed(summary_of(record))
        self._lookahead.committed()
