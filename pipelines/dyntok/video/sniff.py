"""Which container a file is, from its first bytes, before any decoder sees it."""

from __future__ import annotations

from dyntok.errors import VideoError

SNIFF_BYTES = 4096

_BOXES = frozenset((b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid"))
_STILL_BRANDS = frozenset((b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"jxl "))
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_PLAYLISTS = (
    "#extm3u",
    "ffconcat",
    "file ",
    "v=0",
    "<mpd",
    "<smil",
    "<asx",
    "<smoothstreamingmedia",
    "<?xml",
    "[playlist]",
    "[reference]",
    "rtsptext",
)


def sniff_container(head: bytes) -> str:
    """`mp4`, `matroska`, `avi`, `mpegts`, `mpegps`, `flv`, `ogg`, `gif` or `asf`.

    `head` is the first `SNIFF_BYTES` bytes, or the whole file if it is shorter. Raises VideoError `empty`,
    `playlist` (the decoder would open other files for it) or `not_a_video`; the message names no file.
    """
    if not head:
        raise VideoError("empty", "the file has no bytes")
    container = _by_magic(head)
    if container is not None:
        return container
    text = head[:512].decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n").lower()
    if text.startswith(_PLAYLISTS):
        raise VideoError(
            "playlist",
            "the file is a playlist or script, which would make the decoder open other files",
            hint="give the video files themselves",
        )
    raise VideoError("not_a_video", "the first bytes are of no known video container")


def _by_magic(head: bytes) -> str | None:
    if head[4:8] in _BOXES and _box_size_is_possible(head):
        is_still = head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS
        return None if is_still else "mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    if head[:3] == b"FLV" and head[3:4] in (b"\x01", b"\x02"):
        return "flv"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:16] == _ASF:
        return "asf"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpegps"
    return "mpegts" if _is_transport_stream(head) else None


def _box_size_is_possible(head: bytes) -> bool:
    size = int.from_bytes(head[:4], "big")
    return size in (0, 1) or size >= 8


def _is_transport_stream(head: bytes) -> bool:
    """At least four sync bytes in a row at the spacing of 188, 192 (with time codes) or 204 bytes."""
    for spacing in (188, 192, 204):
        for first in range(min(spacing, len(head))):
            marks = head[first::spacing]
            if len(marks) >= 4 and marks.count(0x47) == len(marks):
                return True
    return False
