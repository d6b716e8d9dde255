"""Pictures and short clips as files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.filter import Graph

from dyntok.errors import UsageError
from dyntok.pictures.drawing import Image

MOVIES = {".mp4": "mp4", ".gif": "gif"}
_CRF = "20"


def check_suffix(path: str, suffixes: Iterable[str]) -> None:
    """Raise UsageError unless the name of a file says that it is one of these."""
    known = list(suffixes)
    if Path(path).suffix.lower() not in known:
        raise UsageError(f"{path} does not end in {' or '.join(known)}", hint=f"call it NAME{known[0]}")


def write_png(path: str, image: Image) -> None:
    """Write `[H, W, 3]` as a PNG file. Raises UsageError if it cannot be written."""
    check_suffix(path, [".png"])
    with _replaced(path) as part:
        part.write_bytes(png_bytes(image))


def png_bytes(image: Image) -> bytes:
    """`[H, W, 3]` as the content of a PNG file."""
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def write_movie(path: str, images: Iterable[Image], rate: float) -> int:
    """Write pictures of one size as an MP4 (H.264) or an endless GIF, by the suffix; returns how many they were.

    `rate`: pictures a second. One picture is in memory at a time. Raises UsageError if the file cannot be written.
    """
    check_suffix(path, MOVIES)
    kind = MOVIES[Path(path).suffix.lower()]
    speed = Fraction(rate).limit_denominator(1000)
    with _replaced(path) as part, av.open(str(part), "w", format=kind) as out:
        return _write_gif(out, images, speed) if kind == "gif" else _write_mp4(out, images, speed)


def _write_mp4(out: Any, images: Iterable[Image], rate: Fraction) -> int:
    stream: Any = None
    count = 0
    for count, image in enumerate(images, start=1):
        even = _even(image)
        if stream is None:
            stream = out.add_stream("libx264", rate=rate, options={"crf": _CRF})
            stream.height, stream.width = even.shape[:2]
            stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = count - 1, 1 / rate
        out.mux(stream.encode(frame))
    if stream is not None:
        out.mux(stream.encode(None))
    return count


def _write_gif(out: Any, images: Iterable[Image], rate: Fraction) -> int:
    stream: Any = None
    palettes: Any = None
    count = 0
    for count, image in enumerate(images, start=1):
        if stream is None:
            stream = out.add_stream("gif", rate=rate)
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt, stream.time_base = "pal8", 1 / rate
            palettes = _Palettes(image, rate)
        for frame in palettes(image, count - 1):
            out.mux(stream.encode(frame))
    if stream is not None:
        for frame in palettes.rest():
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return count


class _Palettes:
    """Gives each picture the 256 colours that suit it best."""

    def __init__(self, image: Image, rate: Fraction) -> None:
        self._time_base = 1 / rate
        self._graph = graph = Graph()
        graph.threads = 1
        height, width = image.shape[:2]
        base = f"{self._time_base.numerator}/{self._time_base.denominator}"
        self._source: Any = graph.add("buffer", f"video_size={width}x{height}:pix_fmt=rgb24:time_base={base}")
        split, found = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        used = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        self._sink: Any = graph.add("buffersink")
        self._source.link_to(split)
        split.link_to(used, 0, 0)
        split.link_to(found, 1, 0)
        found.link_to(used, 0, 1)
        used.link_to(self._sink)
        graph.configure()

    def __call__(self, image: Image, number: int) -> Iterator[Any]:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = number, self._time_base
        self._source.push(frame)
        yield from self._ready()

    def rest(self) -> Iterator[Any]:
        self._source.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Any]:
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield frame


def _even(image: Image) -> Image:
    """With its last row and column repeated where needed: video has half as many colours as pixels each way."""
    height, width = image.shape[:2]
    padded: Image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)


@contextmanager
def _replaced(path: str) -> Iterator[Path]:
    """A file beside `path` that takes its place when all went well."""
    part = Path(f"{path}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"cannot write {path}: {reason}", hint="name a file in a folder that exists"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
