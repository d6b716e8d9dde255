"""The frame index: which frames a video presents, and from where each can be decoded.

One demux-only pass over the packets of the video stream. Frames that are there but not shown (edit lists, hidden
reference frames) are not in it; what is in it is sorted by presentation time, and sampling is defined on it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dyntok.errors import VideoError
from dyntok.video.container import OpenVideo
from dyntok.video.damage import is_cut
from dyntok.video.keys import KeyKind, key_kind, shows_frame

Ints = npt.NDArray[np.int64]
Access = Literal["seek", "forward", "count"]

NO_TIME = -(2**63)  # FFmpeg's own mark
_KEY, _CLEAN, _DISCARD, _HIDDEN = 1, 2, 4, 8
# Containers whose times are invented or patchy: frames are counted instead.
_COUNTED = {"avi": "the times of an AVI are invented", "mpegps": "a program stream does not time every frame"}
# Containers in which a seek may land anywhere or nowhere.
_FORWARD = {
    "gif": "a GIF cannot be searched",
    "ogg": "an Ogg file has no index",
    "asf": "an ASF index is coarse",
}


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """What a video presents. Packets are numbered in decode order, frames (positions) in presentation order.

    Attributes:
        pts: `[P]` int64 ticks of each presented frame, ascending.
        packet: `[P]` int64, each frame's packet. Empty where `access` is `count`.
        clean: `[P]` int64, the key packet at or before it from which nothing earlier is needed to show it.
        entry: `[P]` int64, the packet at which decoding begins in order to show it; at most `clean`.
        packet_pts: `[N]` int64 ticks of each packet, -2**63 where it has none.
        packet_dts: `[N]` int64, the same for decode times.
        packet_key: `[N]` bool.
        access: `seek`; `forward` (decode from the start, no seeking); or `count` (the list comes from a
            full decode, since the packets do not tell which frames there will be).
        access_reason: why it is not `seek`, else empty.
    """

    pts: Ints
    packet: Ints
    clean: Ints
    entry: Ints
    packet_pts: Ints
    packet_dts: Ints
    packet_key: npt.NDArray[np.bool_]
    discarded: int
    last_duration: int
    time_base: Fraction
    nominal_rate: Fraction
    access: Access
    access_reason: str = ""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def fps(self) -> float:
        """Presented mean rate: frames per second between the first and the last presentation time."""
        span = int(self.pts[-1]) - int(self.pts[0])
        return float((len(self) - 1) / (span * self.time_base)) if span > 0 else float(self.nominal_rate)

    @property
    def seconds(self) -> float:
        """Presented duration, the last frame's own included."""
        last = self.last_duration * self.time_base or 1 / Fraction(self.fps)
        return float((int(self.pts[-1]) - int(self.pts[0])) * self.time_base + last)

    def pts_seconds(self, positions: Ints) -> npt.NDArray[np.float64]:
        """`[T]` float64 presentation times of frames, in seconds on the container's clock."""
        ticks = self.pts[positions].astype(np.float64)
        return ticks * self.time_base.numerator / self.time_base.denominator

    def counted(self, times: Sequence[int | None]) -> FrameIndex:
        """The same video with the frames of a full decode, at `times` in ticks where the decoder knows them all."""
        ticks = [NO_TIME if time is None else time for time in times]
        pts = np.array(ticks, np.int64)
        time_base = self.time_base
        if NO_TIME in ticks or np.any(np.diff(pts) <= 0):
            pts, time_base = np.arange(len(times), dtype=np.int64), 1 / self.nominal_rate
        none: dict[str, Any] = dict.fromkeys(("packet", "clean", "entry"), np.empty(0, np.int64))
        return replace(self, pts=pts, time_base=time_base, last_duration=0, access="count", **none)

    def without_lead(self, count: int) -> FrameIndex:
        """Without the first `count` frames, which no decoder can show because what they refer to was cut off."""
        kept = {name: getattr(self, name)[count:] for name in ("pts", "packet", "clean", "entry")}
        return replace(self, **kept)


@dataclass(frozen=True, slots=True)
class _Packets:
    pts: Ints
    dts: Ints
    flags: npt.NDArray[np.uint8]
    last_duration: int
    last_is_cut: bool


def build_frame_index(video: OpenVideo) -> FrameIndex:
    """Index a video by demuxing it once; no frame is decoded. 24 bytes a packet.

    It stands at its end afterwards. Raises VideoError: `truncated` if the container claims more than there is,
    `no_frames`, `too_large`, `corrupt`.
    """
    packets = _read_packets(video)
    claimed = _claimed_packets(video)
    whole = len(packets.pts) - packets.last_is_cut
    if whole < max(claimed, len(packets.pts)) or _is_short(video, whole):
        raise VideoError(
            "truncated",
            f"{video.name} ends early: its video stream has {whole} whole frames"
            + (f" of {claimed}" if claimed > whole else ""),
            hint="fetch the file again",
        )
    index = _index_of(packets, video)
    if index.seconds > video.limits.max_seconds:
        raise VideoError(
            "too_large",
            f"{video.name} is {index.seconds:.0f} s long, more than {video.limits.max_seconds:g} s",
            hint="raise --max-seconds",
        )
    return index


def _claimed_packets(video: OpenVideo) -> int:
    """Packets by the container's own tables, 0 where it has none."""
    return len(video.stream.index_entries) if video.container == "mp4" else 0


def _is_short(video: OpenVideo, packets: int) -> bool:
    if video.container == "mp4" or (video.container == "avi" and packets >= video.stream.frames):
        return False
    return is_cut(video.source, video.container)


def _read_packets(video: OpenVideo) -> _Packets:
    pts, dts, flags = array("q"), array("q"), array("B")
    kind = KeyKind.of(video)
    duration, is_cut = 0, False
    with video.errors("read"):
        for packet in video.input.demux(video.stream):
            if packet.size == 0:
                continue
            if len(pts) >= video.limits.max_packets:
                raise VideoError("too_large", f"{video.name} has more than {video.limits.max_packets} packets")
            pts.append(NO_TIME if packet.pts is None else packet.pts)
            dts.append(NO_TIME if packet.dts is None else packet.dts)
            flags.append(_flags_of(packet, kind))
            duration, is_cut = packet.duration or 0, packet.is_corrupt
    is_cut = is_cut and video.container != "mpegts"
    return _Packets(np.array(pts, np.int64), np.array(dts, np.int64), np.array(flags, np.uint8), duration, is_cut)


def _flags_of(packet: Any, kind: KeyKind) -> int:
    flags = _DISCARD if packet.is_discard else 0
    if packet.is_keyframe:
        flags |= _KEY | (_CLEAN if key_kind(packet, kind) else 0)
    if not shows_frame(packet, kind):
        flags |= _HIDDEN
    return flags


def _index_of(packets: _Packets, video: OpenVideo) -> FrameIndex:
    order = np.flatnonzero((packets.flags & (_DISCARD | _HIDDEN)) == 0)
    if not len(order):
        raise VideoError("no_frames", f"{video.name}: its video stream presents no frame")
    pts = packets.pts[order]
    by_time = np.argsort(pts, kind="stable")
    order, pts = order[by_time], pts[by_time]
    access, why = _access(packets, pts, video)
    clean, entry = _entries(packets, order, pts)
    rate = video.stream.average_rate or video.stream.base_rate or Fraction(1)
    return FrameIndex(
        pts=pts,
        packet=order,
        clean=clean,
        entry=entry,
        packet_pts=packets.pts,
        packet_dts=packets.dts,
        packet_key=(packets.flags & _KEY) != 0,
        discarded=int(np.count_nonzero(packets.flags & _DISCARD)),
        last_duration=packets.last_duration,
        time_base=video.stream.time_base,
        nominal_rate=rate,
        access=access,
        access_reason=why,
    )


def _access(packets: _Packets, pts: Ints, video: OpenVideo) -> tuple[Access, str]:
    if video.container in _COUNTED:
        return "count", _COUNTED[video.container]
    if pts[0] == NO_TIME:
        return "count", "some frames have no time"
    if np.any(np.diff(pts) == 0):
        return "count", "some frames have the same time"
    dts = packets.dts[packets.dts != NO_TIME]
    if np.any(np.diff(dts) < 0):
        return "count", "the clock of the stream runs backwards"
    if video.codec == "h264" and video.context.field_order > 1:
        return "count", "fields of an interlaced stream may be packets of their own"
    if video.container in _FORWARD:
        return "forward", _FORWARD[video.container]
    return "seek", ""


def _entries(packets: _Packets, order: Ints, pts: Ints) -> tuple[Ints, Ints]:
    """For each frame its `clean` and `entry` packets.

    A key packet serves the frames that follow it in both orders; those that are decoded after it and shown before
    it refer to what came earlier. Where a key does not reset the decoder (an H.264 recovery point), decoding begins
    one key earlier, so that the references are there when it comes.
    """
    keys = np.flatnonzero(packets.flags & _KEY)
    if not len(keys):
        return np.zeros_like(order), np.zeros_like(order)
    key_pts = packets.pts[keys]
    number = np.searchsorted(keys, order, side="right") - 1
    while np.any(early := (number >= 0) & (key_pts[number] > pts)):
        number = np.where(early, number - 1, number)
    clean = np.where(number >= 0, keys[number], 0)
    needs_more = (number >= 0) & ((packets.flags[clean] & _CLEAN) == 0)
    before = np.where(needs_more, number - 1, number)
    entry = np.where(before >= 0, keys[before], 0)
    return clean, entry
