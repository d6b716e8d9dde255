"""Puts the pieces of one video together until it is a sample that a shard writer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.boundaries import groups_of
from dyntok.errors import VideoError
from dyntok.records import Grid, Level, Sample, SampledFrames, VideoInfo
from dyntok.run.shard.batch import MergedBatch
from dyntok.run.shard.spool import SpoolBudget, TokenSpool
from dyntok.store.samples import MAX_TOKENS


class VideoAssembly:
    """Collects merged frames of one video in order. Used by one thread at a time."""

    def __init__(
        self,
        frames: SampledFrames,
        info: VideoInfo,
        thresholds: tuple[float, ...],
        scratch: Path,
        budget: SpoolBudget,
    ) -> None:
        self.frames = frames
        self.info = info
        self._thresholds = thresholds
        self._similarity: list[npt.NDArray[np.float32]] = []
        self._received = 0
        self._spools = [TokenSpool(scratch, budget) for _ in thresholds]
        self._scales: list[list[npt.NDArray[np.float32]]] = [[] for _ in thresholds]

    def add(self, start: int, batch: MergedBatch, first: int, count: int) -> None:
        """Take frames `first .. first + count` of `batch` as the sampled frames from `start` on."""
        if start != self._received:
            raise ValueError(f"expected sampled frame {self._received}, got {start}")
        self._received += count
        self._similarity.append(batch.similarity[first : first + count].copy())
        for level, spool, scales in zip(batch.levels, self._spools, self._scales, strict=True):
            low, high = int(level.frame_splits[first]), int(level.frame_splits[first + count])
            # A part of a batch would keep all of it in memory.
            spool.append(level.tokens[low:high], keep=high - low == len(level.tokens))
            if level.scale is not None:
                scales.append(level.scale[low:high].copy())

    def finish(self, *, key: str, video_id: str, dtype: str, token_dim: int, meta: dict[str, Any]) -> Sample:
        """The sample; its token chunks can be read once. Raises VideoError: frames are missing, or tokens too many."""
        if self._received != len(self.frames):
            raise VideoError("truncated", f"{self._received} of {len(self.frames)} sampled frames were decoded")
        similarity = np.concatenate(self._similarity)
        levels = tuple(self._level(i, similarity) for i in range(len(self._thresholds)))
        return Sample(
            key=key,
            id=video_id,
            grid=Grid(similarity.shape[1], similarity.shape[2]),
            token_dim=token_dim,
            dtype=dtype,
            similarity=similarity,
            frames=self.frames,
            levels=levels,
            meta=meta,
        )

    def _level(self, number: int, similarity: npt.NDArray[np.float32]) -> Level:
        spool, scales = self._spools[number], self._scales[number]
        if spool.rows > MAX_TOKENS:
            raise VideoError("too_large", f"{spool.rows} tokens do not fit int32 row splits")
        group_size, row_splits = groups_of(similarity, self._thresholds[number])
        if spool.rows != len(group_size):
            raise ValueError(f"{spool.rows} tokens were merged where the similarity map says {len(group_size)}")
        return Level(
            threshold=self._thresholds[number],
            token_count=len(group_size),
            tokens=spool,
            group_size=group_size,
            row_splits=row_splits,
            token_scale=np.concatenate(scales) if scales else None,
        )

    def close(self) -> None:
        """Free what the video holds; safe after `finish`, once its sample is written."""
        for spool in self._spools:
            spool.close()
