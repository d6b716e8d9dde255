"""Memory that a decode process and its pool share: a table of sampled frames, and a ring of image slots.

It is an anonymous file that is passed as a descriptor, so nothing has a name that could be left behind, and the size
of /dev/shm does not matter.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
import numpy.typing as npt

from dyntok.records import SampledFrames

_MOST_SLOTS = 32
_FEWEST_SLOTS = 4
_AIMED_BYTES = 64 << 20


def slot_count(height: int, width: int) -> int:
    """Images in a ring: 32, or fewer of large ones."""
    return max(_FEWEST_SLOTS, min(_MOST_SLOTS, _AIMED_BYTES // (height * width * 3)))


class FrameRing:
    """Both sides map the same file. The memory is given back when the last view of it is gone."""

    def __init__(self, descriptor: int, height: int, width: int, most_sampled: int) -> None:
        self.descriptor = descriptor
        self.slots = slot_count(height, width)
        self._most_sampled = most_sampled
        table_bytes = most_sampled * 16
        size = table_bytes + self.slots * height * width * 3
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        memory = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        self._index = memory[: most_sampled * 8].view(np.int64)
        self._pts = memory[most_sampled * 8 : table_bytes].view(np.float64)
        self.images: npt.NDArray[np.uint8] = memory[table_bytes:].reshape(self.slots, height, width, 3)

    @classmethod
    def create(cls, height: int, width: int, most_sampled: int) -> FrameRing:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("dyntok-frames", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        return cls(descriptor, height, width, most_sampled)

    def close_descriptor(self) -> None:
        """The mapping stays; the descriptor is not needed once both sides have one."""
        os.close(self.descriptor)

    def write_table(self, frames: SampledFrames) -> None:
        self._index[: len(frames)] = frames.frame_index
        self._pts[: len(frames)] = frames.frame_pts

    def read_table(self, count: int) -> SampledFrames:
        if not 0 <= count <= self._most_sampled:
            raise ValueError(f"a table of {count} frames")
        return SampledFrames(self._index[:count].copy(), self._pts[:count].copy())
