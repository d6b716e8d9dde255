"""Frames of the sources, where these can still be read: decoded in a process that can be killed, as when encoding."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dyntok.errors import ConfigError, RunError
from dyntok.pictures.files import still
from dyntok.pictures.sources import same_frames, sampling_of
from dyntok.records import SourceRef
from dyntok.report.columns import plan_columns
from dyntok.report.gather import StoreStatistics
from dyntok.report.overlays import Overlay
from dyntok.store import StoreRoot
from dyntok.video import (
    DecodeEvent,
    DecodeLimits,
    DecodePool,
    DecodeSettings,
    DecodeTask,
    Failed,
    Finished,
    Frames,
    Opened,
)

SIDE = 252
EACH_S, ALL_S = 20.0, 90.0
_QUANTIZER = 4
_MOST_FRAMES = 4096


def add_thumbnails(statistics: StoreStatistics, overlays: Sequence[Overlay]) -> list[Overlay]:
    """The overlays with frames of their sources.

    A source that is gone, cannot be decoded, takes longer than 20 seconds, or does not present the frames that were
    encoded, has none; all of them together take at most 90 seconds.
    """
    sources = _sources(statistics.root, [overlay.example.id for overlay in overlays])
    wanted = [number for number, overlay in enumerate(overlays) if overlay.example.id in sources]
    images: dict[int, dict[int, bytes]] = {number: {} for number in wanted}
    tasks = [DecodeTask(n, overlays[n].example.id, sources[overlays[n].example.id]) for n in wanted]
    for event in _decoded(statistics.info.config, tasks):
        overlay = overlays[event.task.token]
        positions = {shot.position for shot in overlay.shots}
        if isinstance(event, Opened):
            if not same_frames(event.frames, overlay.head.frames):
                images.pop(event.task.token)
        elif isinstance(event, Frames) and event.task.token in images:
            for position in positions.intersection(range(event.start, event.start + len(event.images))):
                images[event.task.token][position] = jpeg(event.images[position - event.start])
    return [overlay.with_images(images.get(number, {})) for number, overlay in enumerate(overlays)]


def _decoded(config: dict[str, Any], tasks: Sequence[DecodeTask]) -> Iterator[DecodeEvent]:
    """Events of all tasks, until they have ended or the time is over."""
    try:
        sampling = sampling_of(config)
    except (ConfigError, TypeError):
        return
    if not tasks:
        return
    until = time.monotonic() + ALL_S
    limits = DecodeLimits(timeout_s=EACH_S, max_sampled_frames=_MOST_FRAMES)
    settings = DecodeSettings(sampling, limits, SIDE, SIDE)
    try:
        with DecodePool(settings, workers=1, max_attempts=1, queue_ahead=len(tasks)) as pool:
            for task in tasks:
                pool.submit(task)
            while pool.in_flight and (left := until - time.monotonic()) > 0:
                event = pool.next_event(left)
                if event is not None and not isinstance(event, Finished | Failed):
                    yield event
    except RunError:  # no process can be started here: the page does without
        return


def _sources(root: StoreRoot, ids: Sequence[str]) -> dict[str, SourceRef]:
    """Where the bytes of some videos are, as the plan has it."""
    wanted = pa.array(ids, pa.string())
    return {
        row["id"]: SourceRef(row["path"], row["offset"], row["length"])
        for batch in plan_columns(root, ["id", "path", "offset", "length"])
        for row in batch.filter(pc.is_in(batch.column("id"), value_set=wanted)).to_pylist()
    }


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """`[H, W, 3]` RGB as a JPEG file."""
    return still(image, "mjpeg", "yuvj420p", _QUANTIZER)
