"""Decoding one video in this process: what the decode workers, `inspect` and the tests use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.errors import VideoError
from dyntok.records import SampledFrames, SourceRef, VideoInfo
from dyntok.video.container import OpenVideo
from dyntok.video.decord_frames import DecordReader
from dyntok.video.index import FrameIndex, build_frame_index
from dyntok.video.picture import RgbConverter, Turn, degrees_of, turn_of, turned
from dyntok.video.pyav_frames import CountingReader, FrameReader, UnindexedError
from dyntok.video.resize import resize_frame
from dyntok.video.settings import DecodeLimits, DecodeSettings, Sampling

AUTO_REASON = "exact on every file, and mostly faster than decord"
STAGES = ("index", "decode", "resize")


class DecodedVideo:
    """The sampled frames of one video. Close it, or use it as a context manager.

    `backend="auto"` takes PyAV: it is exact on every file, reports damage, and used less CPU than decord in 22 of 24
    comparisons on files where decord is exact too (`python -m tests.video.decoder_table`). decord is there for those
    who ask for it, and refuses files on which it would be inexact.

    Attributes:
        sampled: which frames, `[T]` positions and seconds.
        info: size, length, codec, and which decoder was taken and why.
        stages: CPU seconds so far of `index` (opening and demuxing), `decode` and `resize`.
    """

    def __init__(self, ref: SourceRef, settings: DecodeSettings, *, name: str | None = None) -> None:
        self.stages = dict.fromkeys(STAGES, 0.0)
        self._settings = settings
        self._convert = RgbConverter()
        with self._timed("index"):
            self._video = OpenVideo(ref, name, settings.limits)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> DecodedVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.sampled)

    def close(self) -> None:
        self._video.close()

    def images(self, start: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
        """`[height, width, 3]` uint8 for each sampled frame from position `start` of the sampled list on.

        A frame that was sampled more than once is the same array again. To be called once.
        Raises VideoError `corrupt` for a frame that cannot be decoded without errors, and as opening does.
        """
        positions, repeats = np.unique(self.sampled.frame_index[start:], return_counts=True)
        frames = self._rgb(positions.tolist())
        for count in repeats.tolist():
            with self._timed("decode"):
                rgb = next(frames)
            with self._timed("resize"):
                image = resize_frame(rgb, self._settings.height, self._settings.width, self._settings.resample)
            for _ in range(count):
                yield image

    def source_images(self, frame_index: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """`[h, w, 3]` uint8, upright and at the source's own size, for each of some presented frames, strictly rising.

        To be called once, in place of `images`. Raises VideoError as that does.
        """
        return self._rgb(list(frame_index))

    def _prepare(self) -> None:
        with self._timed("index"):
            index = build_frame_index(self._video)
        with self._timed("decode"):
            self._reader: Any
            self._reader, index, first = _first_look(self._video, index)
            self._turn = turn_of(first, self._video.name)
        self.sampled = _sample(self._video.name, self._settings, index)
        decoder, reason = "pyav", AUTO_REASON if self._settings.backend == "auto" else "asked for"
        if self._settings.backend == "decord":
            with self._timed("decode"):
                self._reader = DecordReader(self._video, index, self._turn, (first.height, first.width))
            decoder, reason = "decord", "asked for, and its frames are those of the index"
        elif index.access != "seek":
            reason += f"; {index.access_reason}"
        self.info = _info(self._video, index, first, self._turn, decoder, reason)

    def _rgb(self, positions: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
        if isinstance(self._reader, DecordReader):
            yield from self._reader.frames(positions)
            return
        for frame in self._reader.frames(positions):
            self._video.check_size(frame.width, frame.height)
            with self._video.errors("converted"):
                image = turned(self._convert(frame), self._turn)
            yield image

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        since = time.process_time()
        try:
            yield
        finally:
            self.stages[stage] += time.process_time() - since


def decode_frames(ref: SourceRef, settings: DecodeSettings, *, name: str | None = None) -> DecodedVideo:
    """Open a video for decoding in this process; frames come from `images()`.

    `name` is what messages call it; by default the file's name without folders. Limits of time and memory are those
    of a decode process and do not hold here. Raises VideoError.
    """
    return DecodedVideo(ref, settings, name=name)


def probe_video(
    ref: SourceRef, sampling: Sampling, limits: DecodeLimits | None = None, *, name: str | None = None
) -> tuple[SampledFrames, VideoInfo]:
    """What decoding would sample, without decoding more than the first frames.

    For containers in which frames have to be counted, the packets are taken for the frames: an estimate.
    Raises VideoError.
    """
    settings = DecodeSettings(sampling=sampling, limits=limits or DecodeLimits(), height=1, width=1)
    with OpenVideo(ref, name, settings.limits) as video:
        index = build_frame_index(video)
        reader = FrameReader(video, replace(index, access="forward"))
        try:
            first = reader.look()
        except UnindexedError:
            first = CountingReader(video).first()
        turn = turn_of(first, video.name)
        sampled = _sample(video.name, settings, reader.index)
        return sampled, _info(video, reader.index, first, turn, "pyav", AUTO_REASON)


def _first_look(video: OpenVideo, index: FrameIndex) -> tuple[Any, FrameIndex, Any]:
    """A reader, the index it goes by, and the first frame."""
    if index.access != "count":
        reader = FrameReader(video, index)
        try:
            first = reader.look()
            return reader, reader.index, first
        except UnindexedError:
            index = replace(index, access="count", access_reason="packets and frames do not match")
    counter = CountingReader(video)
    times, first = counter.look()
    if first is None:
        raise VideoError("corrupt", f"{video.name}: none of its frames can be decoded")
    return counter, index.counted(times), first


def _sample(name: str, settings: DecodeSettings, index: FrameIndex) -> SampledFrames:
    limit = settings.limits.max_sampled_frames
    count = settings.sampling.count(len(index), index.fps)
    if count > limit:
        raise VideoError(
            "too_large",
            f"{name}: {count} frames were asked for, more than {limit}",
            hint="lower --fps or --frames",
        )
    positions = settings.sampling.choose(len(index), index.fps)
    return SampledFrames(positions, index.pts_seconds(positions))


def _info(video: OpenVideo, index: FrameIndex, first: Any, turn: Turn, decoder: str, reason: str) -> VideoInfo:
    width, height = first.width, first.height
    if degrees_of(turn) in (90, 270):
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        rotation_degrees=degrees_of(turn),
        frames_total=len(index),
        seconds=index.seconds,
        fps=index.fps,
        container=video.container,
        codec=video.codec,
        decoder=decoder,
        decoder_reason=reason,
    )
