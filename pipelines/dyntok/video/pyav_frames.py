"""Exact frames with PyAV: seek to where decoding must begin, decode, and take what has the right time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av.error
import numpy as np

from dyntok.errors import VideoError
from dyntok.video.container import OpenVideo
from dyntok.video.index import NO_TIME, FrameIndex

# A decoder may hold back this many packets before it gives a frame.
_DELAY_PACKETS = 64
# For so many packets behind a wanted frame's own, others may still be skipped; those after them push it out.
_SKIPPED_BEHIND = _DELAY_PACKETS // 2
# Shorter ways are decoded rather than jumped over.
_SHORTEST_JUMP = 8
_REPORTED = (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.EOFError, av.error.ExternalError)


class UnindexedError(Exception):
    """The decoder's first frames are not those of the index: the packets do not tell which frames there are."""


class _LostError(Exception):
    """The packets that come are not those that were indexed."""


class FrameReader:
    """Decodes frames of an indexed video by position. Positions must be asked for in ascending order.

    `video` belongs to the reader from now on, and may stand anywhere.
    """

    def __init__(self, video: OpenVideo, index: FrameIndex) -> None:
        self._video = video
        self.index = index
        self._packets: Any = None
        self._held: Any = None
        self._done = False
        self._ready: dict[int, Any] = {}
        self._wanted: frozenset[int] = frozenset()
        self._skip_before = 0
        self._lead = _lead_frames(index)
        self._trusted = index.access == "seek"
        self._rewind()

    def look(self) -> Any:
        """The first frame that can be decoded, with the index checked against it and the next ones.

        Frames at the start that refer to what was cut off are taken out of `index`.
        Raises UnindexedError, and VideoError `corrupt` if nothing can be decoded.
        """
        self._wanted = frozenset(range(min(len(self.index), 2 * _DELAY_PACKETS)))
        while not self._done and len(self._ready) < 3:
            self._feed()
        found = sorted(self._ready)
        if not found:
            raise VideoError("corrupt", f"{self._video.name}: none of its first frames can be decoded")
        if not self._errors:
            lead = found[0] if found[0] <= self._lead else 0
            if found != list(range(lead, lead + len(found))) or self._strays:
                raise UnindexedError
            if lead:
                self.index = self.index.without_lead(lead)
                self._ready = {position - lead: frame for position, frame in self._ready.items()}
                self._lead = 0
        return self._ready[min(self._ready)]

    def frames(self, positions: Sequence[int]) -> Iterator[Any]:
        """The frame at each of `positions` (strictly ascending), as PyAV frames.

        Raises VideoError `corrupt` for a frame that the decoder cannot give without reporting errors.
        """
        self._wanted = frozenset(positions)
        for position in positions:
            for passed in [p for p in self._ready if p < position]:
                del self._ready[passed]
            yield self._reach(position)

    def _reach(self, position: int) -> Any:
        try:
            if position not in self._ready:
                self._go_towards(position)
            if (frame := self._pull(position)) is not None:
                return frame
            # A seek may have dropped what a sequential decode has. So once more, from further back.
            entry = self._earlier_entry(position)
        except _LostError:
            self._trusted = False
            entry = 0
        if entry is not None:
            self._go_to(entry)
            try:
                if (frame := self._pull(position)) is not None:
                    return frame
            except _LostError:
                raise VideoError("changed", f"{self._video.name} changed while it was read") from None
        when = self.index.pts_seconds(np.array([position]))[0]
        raise VideoError(
            "corrupt",
            f"{self._video.name}: frame {position} at {when:.3f} s cannot be decoded without errors",
        )

    def _earlier_entry(self, position: int) -> int | None:
        """Where to begin if the first attempt failed; None if it began there already."""
        earlier = np.flatnonzero(self.index.packet_key[: int(self.index.entry[position])])
        entry = int(earlier[-2]) if len(earlier) > 1 and self._trusted else 0
        return entry if entry < self._began else None

    def _go_towards(self, position: int) -> None:
        entry = int(self.index.entry[position])
        if self._trusted and (entry - self._next >= _SHORTEST_JUMP or self._done):
            self._go_to(entry)

    def _pull(self, position: int) -> Any:
        """Decode until the frame is there; None if it does not come, or may rest on what cannot be decoded."""
        packet = int(self.index.packet[position])
        self._skip_before = packet + _SKIPPED_BEHIND
        while position not in self._ready:
            if self._done or self._next > packet + _DELAY_PACKETS:
                return None
            self._feed()
        frame = self._ready.pop(position)
        return None if self._is_tainted(position) else frame

    def _feed(self) -> None:
        packet = self._next_packet()
        is_flush = packet.size == 0
        number = self._next
        if not is_flush:
            self._next += 1
            if number >= len(self.index.packet_pts) or _ticks(packet.pts) != self.index.packet_pts[number]:
                raise _LostError
            self._choose_skipping(packet, number)
        with self._video.errors("decoded"):
            try:
                frames = packet.decode()
            except _REPORTED:
                self._note_error(number, self._position_of(packet.pts))
                frames = []
        for frame in frames:
            self._take(frame)
        self._done = self._done or is_flush

    def _next_packet(self) -> Any:
        """The next packet of the stream; an empty one flushes the decoder and is the last."""
        packet, self._held = self._held, None
        with self._video.errors("read"):
            while packet is None or (packet.size == 0 and packet.dts is not None):
                packet = next(self._packets)
        return packet

    def _choose_skipping(self, packet: Any, number: int) -> None:
        """Frames that nothing refers to need not be decoded if they are not wanted."""
        if self._video.codec == "h264":
            may_skip = number < self._skip_before and not self._is_wanted_time(packet.pts)
            self._video.context.skip_frame = "NONREF" if may_skip else "DEFAULT"

    def _is_wanted_time(self, pts: int | None) -> bool:
        position = self._position_of(pts)
        return position is None or position in self._wanted

    def _take(self, frame: Any) -> None:
        position = self._position_of(frame.pts)
        if position is None:
            self._strays += 1
            return
        if frame.is_corrupt:
            self._note_error(int(self.index.packet[position]), position)
        elif position in self._wanted:
            self._ready[position] = frame

    def _note_error(self, number: int, position: int | None) -> None:
        """Errors of frames that precede the first key frame are in the nature of a cut stream."""
        if position is None or position >= self._lead:
            self._errors.append(number)

    def _position_of(self, pts: int | None) -> int | None:
        if pts is None:
            return None
        position = int(np.searchsorted(self.index.pts, pts))
        found = position < len(self.index) and int(self.index.pts[position]) == pts
        return position if found else None

    def _is_tainted(self, position: int) -> bool:
        """Whether the decoder complained about anything that this frame may rest on."""
        first, last = int(self.index.clean[position]), int(self.index.packet[position])
        return any(first <= number <= last for number in self._errors)

    def _go_to(self, entry: int) -> None:
        if entry <= 0 or not self._seek(entry):
            self._rewind()

    def _seek(self, entry: int) -> bool:
        """Stand at a key packet at or before `entry`. False if the container does not lead there."""
        context = self._video.context
        depth = context.reorder_depth
        for ticks in self._seek_targets(entry):
            try:
                self._video.input.seek(ticks, stream=self._video.stream)
            except av.error.FFmpegError:
                self._video.source.check()
                continue
            # A flush may make the decoder forget how far frames are reordered, and then drop some.
            context.reorder_depth = max(depth, context.reorder_depth)
            self._packets = self._video.input.demux(self._video.stream)
            landed = self._first_key_packet()
            if landed is not None and landed <= entry:
                self._start_at(landed)
                return True
        return False

    def _seek_targets(self, entry: int) -> list[int]:
        """Some containers search by presentation time, others by decode time."""
        times = [int(self.index.packet_pts[entry]), int(self.index.packet_dts[entry])]
        earlier = np.flatnonzero(self.index.packet_key[:entry])
        if len(earlier):
            times.append(int(self.index.packet_dts[earlier[-1]]))
        return [t for t in times if t != NO_TIME]

    def _first_key_packet(self) -> int | None:
        """The number of the first indexed key packet from here on, which is held back for feeding."""
        with self._video.errors("read"):
            for packet in self._packets:
                if packet.size and packet.is_keyframe:
                    same = (self.index.packet_pts == _ticks(packet.pts)) & self.index.packet_key
                    numbers = np.flatnonzero(same)
                    self._held = packet
                    return int(numbers[0]) if len(numbers) == 1 else None
        return None

    def _rewind(self) -> None:
        self._video.reopen()
        self._packets = self._video.input.demux(self._video.stream)
        self._held = None
        self._start_at(0)

    def _start_at(self, number: int) -> None:
        self._began = self._next = number
        self._done = False
        self._errors: list[int] = []
        self._strays = 0
        self._ready.clear()


def _ticks(time: int | None) -> int:
    return NO_TIME if time is None else time


def _lead_frames(index: FrameIndex) -> int:
    """How many frames are shown before the first key frame, or come before it in the file."""
    keys = np.flatnonzero(index.packet_key)
    if not len(keys):
        return 0
    return int(np.count_nonzero((index.pts < index.packet_pts[keys[0]]) | (index.packet < keys[0])))


class CountingReader:
    """Decodes a video from the start and counts; for containers whose packets do not tell the frames."""

    def __init__(self, video: OpenVideo) -> None:
        self._video = video

    def look(self) -> tuple[list[int | None], Any]:
        """The time (ticks) of every frame of a full decode, and the first frame."""
        times: list[int | None] = []
        first: Any = None
        for frame, _ in self._decode():
            first = first or frame
            times.append(frame.pts)
            if len(times) > self._video.limits.max_packets:
                raise VideoError("too_large", f"{self._video.name} has too many frames")
        return times, first

    def first(self) -> Any:
        """The first frame of all."""
        for frame, _ in self._decode():
            return frame
        raise VideoError("corrupt", f"{self._video.name}: none of its frames can be decoded")

    def frames(self, positions: Sequence[int]) -> Iterator[Any]:
        """As `FrameReader.frames`; positions count the frames of a full decode."""
        wanted = iter(positions)
        target = next(wanted, None)
        for number, (frame, is_tainted) in enumerate(self._decode()):
            if number != target:
                continue
            if is_tainted:
                raise VideoError("corrupt", f"{self._video.name}: frame {number} cannot be decoded without errors")
            yield frame
            target = next(wanted, None)
            if target is None:
                return
        if target is not None:
            raise VideoError("changed", f"{self._video.name} has fewer frames than when it was counted")

    def _decode(self) -> Iterator[tuple[Any, bool]]:
        """Every frame, and whether an error was reported since the last key frame."""
        self._video.reopen()
        tainted = False
        for packet in self._video.input.demux(self._video.stream):
            if packet.size == 0 and packet.dts is not None:
                continue
            with self._video.errors("decoded"):
                try:
                    frames = packet.decode()
                except _REPORTED:
                    tainted = True
                    continue
            for frame in frames:
                tainted = bool(frame.is_corrupt) or (tainted and not frame.key_frame)
                yield frame, tainted
