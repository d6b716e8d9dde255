"""The frames of a stored video, decoded again from its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dyntok.corpus import FrozenPlan, fingerprint_like, planned_etag, planned_size
from dyntok.errors import ConfigError, DamageError, InputError, VideoError
from dyntok.load import Store
from dyntok.pictures.drawing import Image
from dyntok.records import PlanEntry, SampledFrames, SourceRef
from dyntok.store.names import PLAN_FILE
from dyntok.video import DecodedVideo, DecodeLimits, DecodeSettings, Sampling, decode_frames

_HINT = "`--no-source` draws the patch grid alone; `--source FILE` names another copy of the file"

_LIMITS = ("max_pixels", "max_seconds")


class SourceVideo:
    """The source of one stored video, which is still the file that was encoded.

    Attributes:
        height, width: of its frames, upright, in pixels.
    """

    def __init__(self, ref: SourceRef, name: str, config: dict[str, Any], frames: SampledFrames) -> None:
        self._ref, self._name, self._frames = ref, name, frames
        self._settings = _settings(config)
        with self._opened() as video:
            self.height, self.width = video.info.height, video.info.width

    @classmethod
    def of(cls, store: Store, video_id: str, frames: SampledFrames, path: str | None = None) -> SourceVideo:
        """The source of a video, by the store's plan; `path` names another copy of it.

        Raises VideoError: `changed` if the content, or the list of its frames, is not what was encoded; another code if
        it is gone or cannot be read or decoded.
        """
        entry = plan_entry(store, video_id)
        ref = entry.ref if path is None else SourceRef(path)
        shown = entry.source if path is None else path
        _check_content(ref, entry, shown)
        return cls(ref, shown, store.info.config, frames)

    def images(self, positions: Sequence[int]) -> Iterator[Image]:
        """`[height, width, 3]` of each of some stored frames, by rising position; a repeated frame is decoded once.

        Raises VideoError.
        """
        wanted = self._frames.frame_index[list(positions)]
        each, repeats = np.unique(wanted, return_counts=True)
        with self._opened() as video:
            for image, count in zip(video.source_images(each.tolist()), repeats.tolist(), strict=True):
                for _ in range(count):
                    yield image

    def _opened(self) -> DecodedVideo:
        video = decode_frames(self._ref, self._settings)
        if not same_frames(video.sampled, self._frames):
            video.close()
            raise changed(f"{self._name} does not present the frames that were encoded")
        return video


def same_frames(one: SampledFrames, other: SampledFrames) -> bool:
    """Whether two lists have the same frames at the same times."""
    same_times = np.array_equal(one.frame_pts, other.frame_pts)
    return same_times and np.array_equal(one.frame_index, other.frame_index)


def plan_entry(store: Store, video_id: str) -> PlanEntry:
    """The row of the plan that a video was encoded from. Raises KeyError, DamageError and StoreError."""
    shard, row = store.index.row(store.index.position(video_id))
    with FrozenPlan.open(store.root.seekable(PLAN_FILE)) as plan:
        entries = plan.shard(shard) if shard in plan.shard_numbers else []
    for entry in entries:
        if (entry.id, entry.position) == (video_id, row.position):
            return entry
    raise DamageError(
        f"{store.root.where(PLAN_FILE)} has no row of {video_id!r}", hint="`dyntok verify` lists all damage"
    )


def changed(message: str) -> VideoError:
    """The error for a source that is not the one that was encoded."""
    return VideoError("changed", message, hint=_HINT)


def _check_content(ref: SourceRef, entry: PlanEntry, shown: str) -> None:
    """Raise VideoError unless the file has the fingerprint of the plan.

    Of a copy whose plan holds the etag of an object store, only the size can be compared.
    """
    planned = entry.fingerprint
    if planned is None:  # the plan could not read it; its frames are compared all the same
        return
    try:
        present = fingerprint_like(ref, planned)
    except InputError as error:
        raise VideoError("unreadable", error.message, hint=error.hint) from error
    if present is None:
        raise VideoError("not_found", f"{shown} is not there, or cannot be read", hint=_HINT)
    if planned_etag(planned) is not None and planned_etag(present) is None:
        same = planned_size(planned) == planned_size(present)
    else:
        same = present == planned
    if not same:
        raise changed(f"{shown} is not the file that was encoded: its size or content has changed")


def sampling_of(config: dict[str, Any]) -> Sampling:
    """How a store's videos were sampled. Raises ConfigError or TypeError where its config does not say."""
    return Sampling(config.get("frames"), config.get("fps"), config.get("max_frames"))


def _settings(config: dict[str, Any]) -> DecodeSettings:
    """Sampling and limits as the store was made with; the frames come at their own size."""
    try:
        sampling = sampling_of(config)
        limits = DecodeLimits(**{name: config[name] for name in _LIMITS if name in config})
    except (ConfigError, TypeError) as error:
        raise VideoError("decoder", f"the store does not say how frames were sampled: {error}") from error
    return DecodeSettings(sampling, limits, height=1, width=1)
