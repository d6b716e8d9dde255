"""Whether a file ends before its own headers say: a broken-off copy, told from the container's sizes alone."""

from __future__ import annotations

from dyntok.video.sources import SourceFile

_SEGMENT = bytes.fromhex("18538067")
_MOST_BOXES = 100_000


def is_cut(source: SourceFile, container: str) -> bool:
    """True if the outermost elements of an MP4, Matroska or AVI file reach beyond its end."""
    if container == "mp4":
        return _boxes_are_cut(source)
    if container == "matroska":
        return _segment_is_cut(source)
    return container == "avi" and _riff_is_cut(source)


def _at(source: SourceFile, position: int, count: int) -> bytes:
    source.seek(position)
    return source.read(count)


def _boxes_are_cut(source: SourceFile) -> bool:
    position = 0
    for _ in range(_MOST_BOXES):
        head = _at(source, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return False
        position += length
        if position >= source.size:
            return position > source.size
    return False


def _segment_is_cut(source: SourceFile) -> bool:
    head = _at(source, 0, 64)
    length, begin = _ebml_size(head, 4)
    if length is None:
        return False
    segment = begin + length
    head = _at(source, segment, 16)
    if head[:4] != _SEGMENT:
        return False
    length, begin = _ebml_size(head, 4)
    return length is not None and segment + begin + length > source.size


def _ebml_size(data: bytes, position: int) -> tuple[int | None, int]:
    """The size at `position` (None if it is left open) and the position after it."""
    first = data[position] if position < len(data) else 0
    width = 9 - first.bit_length()
    if width > 8:
        return None, position
    value = int.from_bytes(data[position : position + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), position + width


def _riff_is_cut(source: SourceFile) -> bool:
    return int.from_bytes(_at(source, 4, 4), "little") + 8 > source.size
