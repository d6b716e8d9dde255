"""What a decode pool keeps of its videos and of its processes."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from dyntok.records import SampledFrames, SourceRef, VideoInfo
from dyntok.video.events import DecodeTask
from dyntok.video.ring import FrameRing
from dyntok.video.zygote import UNKNOWN_STATUS

NEVER = float("inf")


@dataclass(slots=True)
class Job:
    """A task on its way, over all its attempts; `kills` of them ended because somebody killed their process."""

    task: DecodeTask
    ref: SourceRef
    attempts: int = 0
    kills: int = 0
    opened: tuple[SampledFrames, VideoInfo] | None = None
    delivered: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    pid: int
    connection: Connection
    ring: FrameRing
    free: int
    job: Job | None = None
    videos: int = 0
    left_s: float = NEVER
    deadline: float = NEVER


def same_video(one: tuple[SampledFrames, VideoInfo], other: tuple[SampledFrames, VideoInfo]) -> bool:
    """Whether a video that was opened twice had the same frames and properties."""
    frames, others = one[0], other[0]
    same_frames = np.array_equal(frames.frame_index, others.frame_index)
    return one[1] == other[1] and same_frames and np.array_equal(frames.frame_pts, others.frame_pts)


def was_killed(status: int) -> bool:
    """Whether a process was killed from outside, as by an operator or a kernel out of memory, or with its parent.

    A decoder that crashes does so with another signal, and what a video may take is limited from within.
    """
    return status in (-signal.SIGKILL, UNKNOWN_STATUS)


def how_it_ended(status: int) -> str:
    """How a process ended, for a message: ` (SIGKILL)`, ` (exit status 1)`."""
    if status < 0:
        return f" ({signal.Signals(-status).name})"
    return "" if status == UNKNOWN_STATUS else f" (exit status {status})"
