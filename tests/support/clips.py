"""Small odd videos, made with PyAV: what real corpora hold and real decoders trip over."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

WIDTH, HEIGHT, FRAMES, RATE = 96, 64, 60, 25
Matrix = tuple[int, int, int, int]
# Display matrices (a, b, c, d in 16.16 fixed point) of all eight ways to hold a camera.
ONE = 1 << 16
ORIENTATIONS: dict[str, Matrix] = {
    "upright": (ONE, 0, 0, ONE),
    "clock": (0, ONE, -ONE, 0),
    "half": (-ONE, 0, 0, -ONE),
    "cclock": (0, -ONE, ONE, 0),
    "hflip": (-ONE, 0, 0, ONE),
    "vflip": (ONE, 0, 0, -ONE),
    "transpose": (0, ONE, ONE, 0),
    "transverse": (0, -ONE, -ONE, 0),
}


def pictures(count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> list[npt.NDArray[np.uint8]]:
    """A textured background that drifts, a box that moves, and flicker, so that no two frames are alike."""
    rng = np.random.default_rng(7)
    texture = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    background = np.kron(texture, np.ones((8, 8, 1), np.uint8))[:height, :width]
    images = []
    for number in range(count):
        image = np.roll(background, (number // 2, number), (0, 1)).copy()
        left = (number * 3) % (width - 16)
        image[8:24, left : left + 16] = (255 - 4 * number % 256, number * 5 % 256, 40)
        images.append(image)
    return images


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    images: Sequence[npt.NDArray[np.uint8]] | None = None,
    pts: Iterable[int] | None = None,
    rate: int = RATE,
    pixels: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    format: str | None = None,
    format_options: dict[str, str] | None = None,
) -> Path:
    """Encode `images` (the default ones if not given) at `pts` in units of 1/rate seconds."""
    images = pictures() if images is None else images
    times = range(len(images)) if pts is None else pts
    # Else Matroska makes up identifiers.
    options = {"fflags": "+bitexact", **(format_options or {})}
    with av.open(str(path), "w", format=format, options=options) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=codec_options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = time, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def x264(path: Path, options: dict[str, str] | None = None, **more: Any) -> Path:
    """H.264 with B-frames and a key frame every 12, in the container of the suffix."""
    base = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:threads=1", "crf": "28"}
    return write_video(path, "libx264", codec_options=base | (options or {}), **more)


def av1(path: Path) -> Path:
    """AV1 with a key frame every 10."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    write_video(path, "libsvtav1", images=pictures(30), codec_options={"preset": "12", "g": "10"})
    # Its encoder makes a root process real-time, and whatever is started from then on.
    os.sched_setscheduler(0, *before)
    return path


def x264_params(params: str) -> dict[str, str]:
    return {"x264-params": f"min-keyint=12:keyint=12:scenecut=0:b-adapt=0:threads=1:{params}"}


def cut_without_encoding(source: Path, path: Path, lead_seconds: float, first_packet: int = 0) -> Path:
    """Copy packets, with `lead_seconds` of them before time zero: players hide those, as an edit list says."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        assert stream.time_base is not None
        shift = round(lead_seconds / stream.time_base)
        for number, packet in enumerate(p for p in given.demux(stream) if p.size):
            if number < first_packet:
                continue
            assert packet.pts is not None and packet.dts is not None
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copy
            out.mux(packet)
    return path


def with_hidden_frames(source: Path, path: Path) -> Path:
    """Mark every tenth VP8 frame as not to be shown, as encoders do with frames that others refer to."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in given.demux(stream) if p.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xEF if number % 10 == 5 else 0xFF
            hidden = av.Packet(bytes(data))
            hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
            hidden.is_keyframe, hidden.stream = packet.is_keyframe, copy
            out.mux(hidden)
    return path


def turn_camera(path: Path, matrix: Matrix) -> Path:
    """Write a display matrix into the track header of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def two_streams(path: Path) -> Path:
    """A small stream first, then the film, which is marked as the default."""
    films = [pictures(20, 32, 32), pictures(40, WIDTH, HEIGHT)]
    with av.open(str(path), "w") as out:
        streams: list[Any] = []
        for film in films:
            stream: Any = out.add_stream("libx264", rate=RATE, options={"crf": "28"})
            stream.height, stream.width = film[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        streams[0].disposition, streams[1].disposition = 0, Disposition.default
        for film, stream in zip(films, streams, strict=True):
            for number, image in enumerate(film):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def without_head(source: Path, path: Path, share: float) -> Path:
    """A transport stream that somebody began to record in the middle of a group of pictures."""
    data = source.read_bytes()
    begin = int(len(data) * share) // 188 * 188
    tables = data[: 188 * 3]
    path.write_bytes(tables + data[begin:])
    return path


def _uneven(count: int) -> list[int]:
    return np.cumsum(1 + (np.arange(count) * 7 % 5)).tolist()


# Every odd clip by name. A maker gets an empty folder.
CLIPS: dict[str, Callable[[Path], Path]] = {
    "bframes.mp4": lambda d: x264(d / "bframes.mp4"),
    "bframes.mkv": lambda d: x264(d / "bframes.mkv"),
    "pyramid.mp4": lambda d: x264(d / "pyramid.mp4", x264_params("bframes=7:b-pyramid=2:ref=4")),
    # A hundred and more packets of which hardly one is referred to.
    "long_runs.mp4": lambda d: x264(
        d / "long_runs.mp4", x264_params("keyint=120:bframes=16:b-pyramid=none"), images=pictures(130)
    ),
    "one_gop.mp4": lambda d: x264(d / "one_gop.mp4", {"x264-params": "keyint=999:scenecut=0:threads=1"}),
    "one_frame.mp4": lambda d: x264(d / "one_frame.mp4", images=pictures(1)),
    "intra.mp4": lambda d: x264(d / "intra.mp4", {"x264-params": "keyint=1:threads=1"}),
    "open_gop.mp4": lambda d: x264(d / "open_gop.mp4", x264_params("open-gop=1:bframes=3")),
    "open_gop.ts": lambda d: x264(d / "open_gop.ts", x264_params("open-gop=1:bframes=3")),
    "open_gop.mkv": lambda d: x264(d / "open_gop.mkv", x264_params("open-gop=1:bframes=3")),
    "intra_refresh.mkv": lambda d: x264(d / "intra_refresh.mkv", x264_params("intra-refresh=1:bframes=0")),
    "intra_refresh.ts": lambda d: x264(d / "intra_refresh.ts", x264_params("intra-refresh=1:bframes=0")),
    "interlaced.ts": lambda d: x264(d / "interlaced.ts", x264_params("interlaced=1:bframes=2")),
    "broadcast.ts": lambda d: without_head(
        x264(d / "whole.ts", x264_params("open-gop=1:bframes=3"), images=pictures(100)),
        d / "broadcast.ts",
        0.2,
    ),
    "uneven.mp4": lambda d: x264(d / "uneven.mp4", pts=_uneven(FRAMES)),
    "uneven.mkv": lambda d: x264(d / "uneven.mkv", pts=_uneven(FRAMES)),
    "late_start.ts": lambda d: x264(d / "late_start.ts", pts=range(1000, 1000 + FRAMES)),
    "cut.mp4": lambda d: cut_without_encoding(
        x264(d / "whole.mp4", x264_params("keyint=40:bframes=3"), images=pictures(100)), d / "cut.mp4", 0.9
    ),
    "cut_open_gop.mp4": lambda d: cut_without_encoding(
        x264(d / "whole.mp4", x264_params("open-gop=1:bframes=3"), images=pictures(100)),
        d / "cut_open_gop.mp4",
        0.7,
        12,
    ),
    "rotated.mp4": lambda d: turn_camera(x264(d / "rotated.mp4"), ORIENTATIONS["clock"]),
    "two_streams.mp4": lambda d: two_streams(d / "two_streams.mp4"),
    "fragmented.mp4": lambda d: x264(
        d / "fragmented.mp4", format_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "live.mkv": lambda d: x264(d / "live.mkv", format="matroska", format_options={"live": "1"}),
    "film.flv": lambda d: x264(d / "film.flv"),
    "h264.avi": lambda d: x264(d / "h264.avi"),
    "mpeg4.avi": lambda d: write_video(d / "mpeg4.avi", "mpeg4", codec_options={"bf": "2", "g": "12"}),
    "mpeg4.mp4": lambda d: write_video(d / "mpeg4.mp4", "mpeg4", codec_options={"bf": "2", "g": "12"}),
    "mjpeg.avi": lambda d: write_video(d / "mjpeg.avi", "mjpeg", pixels="yuvj420p"),
    "mpeg2.ts": lambda d: write_video(d / "mpeg2.ts", "mpeg2video", codec_options={"bf": "2", "g": "12"}),
    "mpeg2.mpg": lambda d: write_video(
        d / "mpeg2.mpg", "mpeg2video", codec_options={"bf": "2", "g": "12"}, format="vob"
    ),
    "wmv2.wmv": lambda d: write_video(d / "wmv2.wmv", "wmv2", codec_options={"g": "12"}),
    "vp8_hidden.webm": lambda d: with_hidden_frames(
        write_video(d / "whole.webm", "libvpx", codec_options={"g": "30", "b": "300k"}), d / "vp8_hidden.webm"
    ),
    "vp9.webm": lambda d: write_video(
        d / "vp9.webm", "libvpx-vp9", codec_options={"g": "20", "deadline": "realtime", "cpu-used": "8"}
    ),
    "odd_size.webm": lambda d: write_video(
        d / "odd_size.webm",
        "libvpx-vp9",
        images=pictures(20, 91, 67),
        codec_options={"deadline": "realtime", "cpu-used": "8"},
    ),
    "hevc_10bit.mp4": lambda d: write_video(
        d / "hevc_10bit.mp4",
        "libx265",
        images=pictures(40),
        pixels="yuv420p10le",
        codec_options={"x265-params": "keyint=15:open-gop=1:bframes=3:log-level=none:pools=none:frame-threads=1"},
    ),
    "av1.mp4": lambda d: av1(d / "av1.mp4"),
    "anim.gif": lambda d: write_video(d / "anim.gif", "gif", images=pictures(20), pixels="rgb8", rate=10),
    "vp8.ogg": lambda d: write_video(d / "vp8.ogg", "libvpx", codec_options={"g": "12", "b": "300k"}),
}


def make_clip(name: str, folder: Path) -> Path:
    """The clip `name` in `folder`. Raises `av.error.EncoderNotFoundError` or ValueError if PyAV cannot make it."""
    folder.mkdir(parents=True, exist_ok=True)
    return CLIPS[name](folder)
