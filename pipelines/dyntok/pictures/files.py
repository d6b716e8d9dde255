"""Pictures and short clips as files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.filter import Graph

from dyntok.durable import replaced
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
    return still(image, "png", "rgb24")


def still(image: Image, codec: str, pixels: str, quantizer: int | None = None) -> bytes:
    """`[H, W, 3]` as one picture of a codec in a pixel format, both by FFmpeg's names."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1, 1)
    if quantizer is not None:
        encoder.qmin = encoder.qmax = quantizer
    frame = _rgb_frame(image).reformat(format=pixels)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def write_movie(path: str, images: Iterable[Image], rate: float) -> int:
    """Write pictures of one size as an MP4 (H.264) or an endless GIF, by the suffix; returns how many they were.

    `rate`: pictures a second. One picture is in memory at a time. Raises UsageError if the file cannot be written.
    """
    check_suffix(path, MOVIES)
    kind = MOVIES[Path(path).suffix.lower()]
    each = 1 / Fraction(rate).limit_denominator(1000)
    frames = _gif_frames(images, each) if kind == "gif" else _mp4_frames(images, each)
    codec, options = ("gif", {}) if kind == "gif" else ("libx264", {"crf": _CRF})
    stream: Any = None
    count = 0
    with _replaced(path) as part, av.open(str(part), "w", format=kind) as out:
        for frame in frames:
            count += 1
            if stream is None:
                stream = out.add_stream(codec, rate=1 / each, options=options)
                stream.height, stream.width = frame.height, frame.width
                stream.pix_fmt, stream.time_base = frame.format.name, each
            out.mux(stream.encode(frame))
        if stream is not None:
            out.mux(stream.encode(None))
    return count


def _mp4_frames(images: Iterable[Image], each: Fraction) -> Iterator[Any]:
    for number, image in enumerate(images):
        frame = _rgb_frame(_even(image)).reformat(format="yuv420p")
        frame.pts, frame.time_base = number, each
        yield frame


def _gif_frames(images: Iterable[Image], each: Fraction) -> Iterator[Any]:
    """Each picture in the 256 colours that suit it best."""
    graph: Graph | None = None
    source: Any = None
    sink: Any = None
    for number, image in enumerate(images):
        if graph is None:
            graph, source, sink = _palettes(each, *image.shape[:2])
        frame = _rgb_frame(image)
        frame.pts, frame.time_base = number, each
        source.push(frame)
        yield from _ready(sink)
    if graph is not None:
        source.push(None)
        yield from _ready(sink)


def _palettes(each: Fraction, height: int, width: int) -> tuple[Graph, Any, Any]:
    """A graph, which has to be kept; where frames go in, and where they come out, with a palette of their own."""
    graph = Graph()
    graph.threads = 1
    base = f"{each.numerator}/{each.denominator}"
    source = graph.add("buffer", f"video_size={width}x{height}:pix_fmt=rgb24:time_base={base}")
    split, found = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    used, sink = graph.add("paletteuse", "new=1:dither=sierra2_4a"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(used, 0, 0)
    split.link_to(found, 1, 0)
    found.link_to(used, 0, 1)
    used.link_to(sink)
    graph.configure()
    return graph, source, sink


def _ready(sink: Any) -> Iterator[Any]:
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame


def _rgb_frame(image: Image) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def _even(image: Image) -> Image:
    """With its last row and column repeated where needed: video has half as many colours as pixels each way."""
    height, width = image.shape[:2]
    padded: Image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return padded


@contextmanager
def _replaced(path: str) -> Iterator[Path]:
    """A file beside `path` that takes its place when all went well."""
    try:
        with replaced(Path(path)) as aside:
            yield aside
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"cannot write {path}: {reason}", hint="name a file in a folder that exists") from error
