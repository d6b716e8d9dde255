"""What the threads of a run hand to one another."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from dyntok.errors import VideoError
from dyntok.records import PlanEntry, Sample, SampledFrames, VideoInfo, VideoRow
from dyntok.run.shard.assemble import VideoAssembly
from dyntok.vision import EncodedFrames


@dataclass(frozen=True, slots=True)
class ShardWork:
    """One unit of work: the rows of one shard of the plan, in position order.

    The feeder sends it on before the shard's videos; the collect thread to the write thread once all of them are sent.

    `quarantined` holds the positions of videos that killed the process every time: they are not touched, and fail.
    """

    shard: int
    entries: tuple[PlanEntry, ...]
    quarantined: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Rows `first .. first + count` of a batch are the sampled frames from `start` on of video `token`."""

    token: int
    start: int
    first: int
    count: int


@dataclass(slots=True)
class FrameBatch:
    """`images: [B, H, W, 3] uint8`; `frames` of B are filled, the rest is black."""

    images: Tensor
    frames: int = 0
    parts: list[BatchPart] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VideoOpened:
    """The frames of video `token` are known and will follow."""

    token: int
    entry: PlanEntry
    frames: SampledFrames
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class VideoEnded:
    """Every frame of the video has been sent."""

    token: int


@dataclass(frozen=True, slots=True)
class VideoFailed:
    """No more frames of the video come, and those that came do not count."""

    token: int
    entry: PlanEntry
    error: VideoError


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch and what the device makes of it, which may not be there yet."""

    batch: FrameBatch
    encoded: EncodedFrames


Control = ShardWork | VideoOpened | VideoEnded | VideoFailed
DeviceItem = FrameBatch | Control | None
CollectItem = EncodedBatch | Control | None


@dataclass(frozen=True, slots=True)
class DoneVideo:
    """A video ready to be written; `assembly` holds its tokens until then."""

    entry: PlanEntry
    sample: Sample
    assembly: VideoAssembly


@dataclass(frozen=True, slots=True)
class DroppedVideo:
    """A video that failed: nothing is left of it but its row."""

    entry: PlanEntry
    row: VideoRow


ReadyVideo = DoneVideo | DroppedVideo

WriteItem = ReadyVideo | ShardWork | None
