"""The collecting thread: encoded batches in, finished videos out in plan order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dyntok.errors import RunError, VideoError
from dyntok.records import PlanEntry, VideoInfo
from dyntok.run.shard.assemble import VideoAssembly
from dyntok.run.shard.batch import BatchMerger, MergedBatch, own_stream
from dyntok.run.shard.channels import Channel
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import (
    CollectItem,
    Control,
    DoneVideo,
    DroppedVideo,
    EncodedBatch,
    FrameBatch,
    ReadyVideo,
    ShardWork,
    VideoEnded,
    VideoFailed,
    VideoOpened,
    WriteItem,
)
from dyntok.run.shard.order import ShardProgress
from dyntok.store import failed_row, sample_key


@dataclass(slots=True)
class _OpenVideo:
    entry: PlanEntry
    assembly: VideoAssembly
    error: VideoError | None = None


class CollectLoop:
    """Merges what comes from the device; owns every video from its opening until it goes to the write thread."""

    def __init__(
        self,
        job: ShardJob,
        inbox: Channel[CollectItem],
        free: Channel[FrameBatch],
        outbox: Channel[WriteItem],
    ) -> None:
        self._job = job
        self._inbox, self._free, self._outbox = inbox, free, outbox
        self._levels = job.info.level_thresholds
        self._merger = BatchMerger(self._levels, job.info.dtype)
        self._videos: dict[int, _OpenVideo] = {}
        self._shards: dict[int, ShardProgress] = {}

    def run(self) -> None:
        with own_stream(self._job.encoder.device):
            while (item := self._inbox.get()) is not None:
                self._take(item)
        self._outbox.put(None)

    def _take(self, item: EncodedBatch | Control) -> None:
        if isinstance(item, ShardWork):
            self._shards[item.shard] = ShardProgress(item)
            self._advance(item.shard, None)
        elif isinstance(item, VideoOpened):
            assembly = VideoAssembly(
                item.frames, item.info, self._levels, self._job.root.scratch_dir(), self._job.spool_budget
            )
            self._videos[item.token] = _OpenVideo(item.entry, assembly)
        elif isinstance(item, VideoEnded):
            self._end(self._videos.pop(item.token))
        elif isinstance(item, VideoFailed):
            self._fail(self._videos.pop(item.token, None), item.entry, item.error)
        else:
            self._merge(item)

    def close(self) -> None:
        """Free what unfinished videos hold."""
        for video in self._videos.values():
            video.assembly.close()
        for shard in self._shards.values():
            for ready in shard.ready.values():
                if isinstance(ready, DoneVideo):
                    ready.assembly.close()

    def _merge(self, item: EncodedBatch) -> None:
        batch, encoded = item.batch, item.encoded
        encoded.work.wait()
        parts, frames = batch.parts, batch.frames
        with self._job.clock.measure("merge"):
            merged = self._merger(encoded.features[:frames], encoded.tokens[:frames])
        batch.parts, batch.frames = [], 0
        # Only now, so that no more batches wait to be merged than there are buffers.
        self._free.put(batch)
        with self._job.clock.measure("collect"):
            for part in parts:
                video = self._videos[part.token]
                if video.error is None:
                    self._collect(video, merged, part.start, part.first, part.count)
        tokens = len(merged.levels[0].tokens)
        self._job.observer.frames(frames, frames * self._job.info.grid.patches, tokens)

    def _collect(self, video: _OpenVideo, merged: MergedBatch, start: int, first: int, count: int) -> None:
        bad = [frame for frame in range(first, first + count) if frame in merged.bad_frames]
        if not bad:
            video.assembly.add(start, merged, first, count)
            return
        number = int(video.assembly.frames.frame_index[start + bad[0] - first])
        video.assembly.close()
        video.error = VideoError(
            "non_finite",
            f"{video.entry.source}: frame {number} has features or tokens that {self._job.info.dtype} cannot hold",
        )

    def _end(self, video: _OpenVideo) -> None:
        if video.error is not None:
            return self._fail(video, video.entry, video.error)
        entry, assembly = video.entry, video.assembly
        try:
            sample = assembly.finish(
                key=sample_key(entry.id),
                video_id=entry.id,
                dtype=self._job.info.dtype,
                token_dim=self._job.info.token_dim,
                meta=sample_meta(entry, assembly.info, self._job.sample_meta),
            )
        except VideoError as error:
            return self._fail(video, entry, error)
        return self._advance(entry.shard, DoneVideo(entry, sample, assembly))

    def _fail(self, video: _OpenVideo | None, entry: PlanEntry, error: VideoError) -> None:
        if self._job.config.fail_fast:
            raise RunError(f"{entry.source}: {error.code}: {error.message}")
        if video is not None:
            video.assembly.close()
        row = failed_row(entry, sample_key(entry.id), error.code, error.message)
        self._advance(entry.shard, DroppedVideo(entry, row))

    def _advance(self, number: int, video: ReadyVideo | None) -> None:
        shard = self._shards[number]
        if video is not None:
            self._job.observer.encoded(video.entry)
            for item in shard.push(video):
                self._outbox.put(item)
        if shard.complete:
            del self._shards[number]
            self._outbox.put(shard.work)


def sample_meta(entry: PlanEntry, info: VideoInfo, common: dict[str, Any]) -> dict[str, Any]:
    """What a sample's JSON says beyond its id and shapes; no clock, no path of this machine."""
    return {
        **common,
        "source": entry.source,
        "columns": json.loads(entry.extra),
        "video": {
            "width": info.width,
            "height": info.height,
            "rotation_degrees": info.rotation_degrees,
            "frames_total": info.frames_total,
            "seconds": info.seconds,
            "fps": info.fps,
            "container": info.container,
            "codec": info.codec,
        },
    }
