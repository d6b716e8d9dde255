"""Frames with decord, where it can be shown to give the right ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.errors import VideoError
from dyntok.video.container import OpenVideo
from dyntok.video.index import FrameIndex
from dyntok.video.picture import Turn
from dyntok.video.sources import local_path

_CONTAINERS = ("mp4", "matroska")
# The share of repaired frames above which decord fails instead of repeating the last good frame: any at all.
_FAULT_TOLERANCE = 1e-9


class DecordReader:
    """Decodes frames by position with decord. Raises VideoError `decoder` where decord would not be exact.

    decord counts packets that are not presented, repeats the last frame where it finds none, and reads whole local
    files only. So it is used only if its list of frames is the index, time by time.
    """

    def __init__(self, video: OpenVideo, index: FrameIndex, turn: Turn, size: tuple[int, int]) -> None:
        import decord

        self._name = video.name
        self._errors: Any = decord.DECORDError
        path = local_path(video.ref)
        self._refuse_if(path is None, "it reads whole local files only")
        self._refuse_if(video.container not in _CONTAINERS, f"it is not trusted with {video.container} files")
        self._refuse_if(index.access != "seek", index.access_reason)
        self._refuse_if(index.discarded > 0, "the file holds frames that are not presented")
        self._refuse_if(turn != "none", "the picture has to be turned")
        decord.logging.set_level(decord.logging.QUIET)
        with self._reported():
            self._reader = decord.VideoReader(
                str(Path(path or "").absolute()), num_threads=1, fault_tol=_FAULT_TOLERANCE
            )
        self._shape = (*size, 3)
        self._check_times(index)
        self._image(0)

    def frames(self, positions: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """`[h, w, 3]` uint8 for each of `positions` (strictly ascending)."""
        for position in positions:
            yield self._image(position)

    def _image(self, position: int) -> npt.NDArray[np.uint8]:
        with self._reported():
            image: npt.NDArray[np.uint8] = self._reader[position].asnumpy()
        # decord takes padded rows of narrow pictures for a fourth colour.
        self._refuse_if(image.shape != self._shape, "it gives pictures of another shape")
        return image

    def _check_times(self, index: FrameIndex) -> None:
        every = np.arange(len(index))
        self._refuse_if(len(self._reader) != len(index), "it counts another number of frames")
        begins = self._reader.get_frame_timestamp(every)[:, 0].astype(np.float64)
        times = index.pts_seconds(every)
        # decord's times are float32.
        tolerance = np.maximum(1e-4, np.abs(times) * 2**-22)
        self._refuse_if(bool(np.any(np.abs(begins - times) > tolerance)), "its frame times are others")

    def _refuse_if(self, unsafe: bool, why: str) -> None:
        if unsafe:
            raise VideoError("decoder", f"{self._name}: decord would not be exact: {why}", hint="use --decoder auto")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """decord's texts hold line numbers and addresses, so they stay out of the message."""
        try:
            yield
        except self._errors:
            raise VideoError("corrupt", f"{self._name} cannot be decoded without errors by decord") from None
