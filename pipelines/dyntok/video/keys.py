"""What a packet's first bytes tell: whether a key frame resets the decoder, and whether a frame is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dyntok.video.container import OpenVideo

# Codecs whose key frames need nothing from before, except for frames that are shown before them.
_ALWAYS_CLEAN = frozenset(
    (
        "av1",
        "vp8",
        "vp9",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "mjpeg",
        "prores",
        "dnxhd",
        "ffv1",
        "rawvideo",
        "png",
        "flv1",
        "h263",
        "theora",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "v210",
        "qtrle",
        "cinepak",
    )
)
_NAL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class KeyKind:
    """How the packets of a stream are read. `length_bytes` is 0 where units begin with start codes."""

    codec: str
    length_bytes: int

    @classmethod
    def of(cls, video: OpenVideo) -> KeyKind:
        extra = bytes(video.context.extradata or b"")
        length = 0
        if video.codec == "h264" and len(extra) > 6 and extra[0] == 1:
            length = (extra[4] & 3) + 1
        elif video.codec == "hevc" and len(extra) > 22 and extra[:3] not in (b"\0\0\0", b"\0\0\1"):
            length = (extra[21] & 3) + 1
        return cls(video.codec, length)


def key_kind(packet: Any, kind: KeyKind) -> bool:
    """Whether decoding may begin at this key packet with nothing from before it."""
    # The first picture slice near the packet's start tells, by its type.
    if kind.codec == "h264":
        types = (unit & 31 for unit in _units(packet, kind.length_bytes))
        return next((number for number in types if 1 <= number <= 5), 0) == 5
    if kind.codec == "hevc":
        types = (unit >> 1 & 63 for unit in _units(packet, kind.length_bytes))
        return 16 <= next((number for number in types if number < 32), 0) <= 23
    return kind.codec in _ALWAYS_CLEAN


def shows_frame(packet: Any, kind: KeyKind) -> bool:
    """False for the hidden reference frames of VP8, which are packets of their own."""
    return kind.codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _units(packet: Any, length_bytes: int) -> Iterator[int]:
    """The header byte of each unit near the start of a packet."""
    data = bytes(memoryview(packet)[:_NAL_BYTES])
    position = 0
    while True:
        if length_bytes:
            size = int.from_bytes(data[position : position + length_bytes], "big")
            begin = position + length_bytes
            position = begin + size
        else:
            begin = data.find(b"\0\0\1", position) + 3
            position = begin if begin >= 3 else len(data)
        if begin >= len(data) or (begin < 3 and not length_bytes):
            return
        yield data[begin]
