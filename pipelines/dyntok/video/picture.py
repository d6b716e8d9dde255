"""From a decoder's frame to an upright RGB image, as the ffmpeg program does it."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from av.filter import Graph

from dyntok.errors import VideoError

Turn = Literal["none", "clock", "half", "cclock", "transpose", "transverse", "hflip", "vflip"]
_DEGREES: dict[Turn, int] = {"clock": 90, "half": 180, "cclock": 270, "transpose": 90, "transverse": 270}


class RgbConverter:
    """Converts PyAV frames to RGB with the filters of the ffmpeg program (`scale=flags=bicubic,format=rgb24`).

    PyAV's own `reformat` takes the chroma position into account and is up to 96 levels off what ffmpeg and decord
    give for 10-bit HEVC. The filters are set up again when a stream changes its size or format.
    """

    def __init__(self) -> None:
        self._shape: tuple[Any, ...] = ()
        self._source: Any = None
        self._sink: Any = None
        self._graph: Any = None

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """`[h, w, 3]` uint8, not turned."""
        shape = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if shape != self._shape:
            self._set_up(*shape)
            self._shape = shape
        self._source.push(frame)
        image: npt.NDArray[np.uint8] = self._sink.pull().to_ndarray()
        return image

    def _set_up(self, width: int, height: int, pixels: str, colorspace: int, color_range: int) -> None:
        graph = Graph()
        graph.threads = 1
        self._source = graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={pixels}:time_base=1/1:colorspace={colorspace}:range={color_range}",
        )
        scale = graph.add("scale", "flags=bicubic")
        pixel_format = graph.add("format", "rgb24")
        self._sink = graph.add("buffersink")
        graph.link_nodes(self._source, scale, pixel_format, self._sink).configure()
        self._graph = graph


def turn_of(frame: Any, name: str) -> Turn:
    """What the display matrix of a PyAV frame asks for; the cases are those of ffmpeg's autorotate.

    Raises VideoError `decoder` for an angle that is not a quarter turn.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return "none"
    a, b, _, c, d = (int(x) for x in np.frombuffer(bytes(data), np.int32)[:5])
    angle = _clockwise(a, b, c, d)
    if abs(angle - 90) < 1:
        return "transpose" if c > 0 else "clock"
    if abs(angle - 180) < 1:
        return "half" if a < 0 and d < 0 else "hflip" if a < 0 else "vflip"
    if abs(angle - 270) < 1:
        return "transverse" if c < 0 else "cclock"
    if abs(angle) > 1:
        raise VideoError("decoder", f"{name} asks to be turned by {angle:.0f} degrees, which is not a quarter turn")
    return "vflip" if d < 0 else "none"


def _clockwise(a: int, b: int, c: int, d: int) -> float:
    """Degrees in 0..360 of a display matrix, as `get_rotation` of ffmpeg's fftools."""
    scale = math.hypot(a, c), math.hypot(b, d)
    if 0.0 in scale:
        return 0.0
    return round(math.degrees(math.atan2(b / scale[1], a / scale[0]))) % 360


def degrees_of(turn: Turn) -> int:
    return _DEGREES.get(turn, 0)


def turned(image: npt.NDArray[np.uint8], turn: Turn) -> npt.NDArray[np.uint8]:
    """`image` the right way up; contiguous."""
    if turn == "none":
        return image
    if turn in ("clock", "half", "cclock"):
        image = np.rot90(image, {"clock": -1, "half": 2, "cclock": 1}[turn])
    elif turn == "transpose":
        image = image.transpose(1, 0, 2)
    elif turn == "transverse":
        image = np.rot90(image, 2).transpose(1, 0, 2)
    else:
        image = image[:, ::-1] if turn == "hflip" else image[::-1]
    return np.ascontiguousarray(image)
