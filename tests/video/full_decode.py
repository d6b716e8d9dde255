"""Every picture of a file as a decode from start to end gives it, as hashes of raw planes.

Two oracles: FFmpeg as PyAV brings it, and the `ffmpeg` program of the machine, which may be older or missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.stream import Disposition

_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PALETTE_BYTES = 1024
# Some demuxers deliver errors for ever.
_MOST_ERRORS = 1000


@dataclass(slots=True)
class FullDecode:
    """The frames of one stream in the order in which a decoder gives them.

    Attributes:
        times: seconds on the container's clock, None where the frame has none.
        pictures: hash of the raw planes.
        broken: whether the decoder marked the frame as corrupt.
        errors: how often the demuxer or decoder raised or logged an error.
        stream: number of the video stream, -1 if there is none.
        about: codec, container, size and pixel format.
        failed: why there is no frame at all, else empty.
    """

    times: list[float | None] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    broken: list[bool] = field(default_factory=list)
    errors: int = 0
    stream: int = -1
    about: dict[str, Any] = field(default_factory=dict)
    failed: str = ""

    def __len__(self) -> int:
        return len(self.pictures)


def picture_hash(frame: Any) -> str:
    """MD5 of the planes of a PyAV frame without the padding of rows; the same as `-f framemd5` of the program."""
    digest = hashlib.md5(usedforsecurity=False)
    packed = sum(1 for plane in frame.planes if plane.line_size) == 1 or frame.format.has_palette
    for number, plane in enumerate(frame.planes):
        if frame.format.has_palette and number == 1:
            digest.update(bytes(plane)[:_PALETTE_BYTES])
            continue
        if packed:
            row = (frame.format.padded_bits_per_pixel * plane.width + 7) // 8
        else:
            parts = [c for c in frame.format.components if c.plane == number]
            row = sum(c.width * ((c.bits + 7) // 8) for c in parts)
        lines = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
        digest.update(np.ascontiguousarray(lines.reshape(plane.height, plane.line_size)[:, :row]))
    return digest.hexdigest()


def by_pyav(path: Path) -> FullDecode:
    """With the libraries of PyAV and their own defaults."""
    result = FullDecode()
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as logged:
        try:
            with av.open(str(path), metadata_errors="replace") as container:
                stream = _best_stream(container)
                if stream is None:
                    result.failed = "no video stream"
                    return result
                _decode_all(container, stream, result)
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError, LookupError) as error:
            result.failed = result.failed or f"{type(error).__name__}: {error}"
        result.errors += len(logged)
    return result


def _best_stream(container: Any) -> Any:
    best = container.streams.best("video")
    if best is not None and not best.disposition & _STILLS:
        return best
    moving = [s for s in container.streams.video if not s.disposition & _STILLS]
    return moving[0] if moving else None


def _decode_all(container: Any, stream: Any, result: FullDecode) -> None:
    context = stream.codec_context
    result.stream = stream.index
    result.about = {"container": container.format.name.split(",")[0], "streams": len(container.streams.video)}
    if context is None:
        result.failed = "no decoder"
        return
    result.about |= {"codec": context.codec.canonical_name, "width": context.width, "height": context.height}
    context.thread_count = 1
    packets = container.demux(stream)
    while result.errors < _MOST_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            break
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            result.errors += 1
            continue
        for frame in frames:
            result.times.append(None if frame.pts is None else float(frame.pts * frame.time_base))
            result.pictures.append(picture_hash(frame))
            result.broken.append(bool(frame.is_corrupt))
            result.about.setdefault("pixels", frame.format.name)


def by_program(path: Path, stream: int, timeout_s: float) -> FullDecode:
    """With the programs `ffprobe` (times) and `ffmpeg` (pictures). Raises subprocess.TimeoutExpired."""
    result = FullDecode(stream=stream)
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        result.failed = "there is no ffmpeg program"
        return result
    quiet = ["-v", "error", "-threads", "1"]
    asked = "frame=best_effort_timestamp_time"
    probe = [
        "ffprobe",
        *quiet,
        "-select_streams",
        str(stream),
        "-show_entries",
        asked,
        "-of",
        "json",
        str(path),
    ]
    shown = subprocess.run(probe, capture_output=True, timeout=timeout_s, check=False)
    for frame in json.loads(shown.stdout or b"{}").get("frames", []):
        time = frame.get("best_effort_timestamp_time", "N/A")
        result.times.append(None if time == "N/A" else float(time))
    decode = [
        "ffmpeg",
        *quiet,
        "-nostdin",
        "-copyts",
        "-noautorotate",
        "-i",
        str(path),
        "-map",
        f"0:{stream}",
    ]
    decode += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    hashed = subprocess.run(decode, capture_output=True, timeout=timeout_s, check=False)
    for line in hashed.stdout.decode(errors="replace").splitlines():
        if line and not line.startswith("#"):
            result.pictures.append(line.rsplit(",", 1)[-1].strip())
    result.errors = len(hashed.stderr.splitlines())
    return result


def differences(newer: FullDecode, older: FullDecode) -> str:
    """In a few words, what the two say differently; empty if nothing."""
    if older.failed:
        return ""
    if len(newer) != len(older):
        return f"pictures {len(newer)} : {len(older)}"
    found = []
    if newer.pictures != older.pictures:
        apart = sum(a != b for a, b in zip(newer.pictures, older.pictures, strict=True))
        found.append(f"{apart} pictures differ")
    pairs = list(zip(newer.times, older.times, strict=False))
    apart = sum(a is not None and b is not None and abs(a - b) > 1e-3 for a, b in pairs)
    if apart or len(older.times) != len(newer):
        found.append(f"{apart} times differ, {len(newer)} : {len(older.times)}")
    return ", ".join(found)
