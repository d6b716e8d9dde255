"""The slow and obviously right way: decode the whole file in order, with PyAV's own defaults."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph

Image = npt.NDArray[np.uint8]


def to_rgb(frame: av.VideoFrame) -> Image:
    """By a filter graph made anew for each frame, as the ffmpeg program would set it up."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    sink = graph.add("buffersink")
    graph.link_nodes(source, graph.add("scale", "flags=bicubic"), graph.add("format", "rgb24"), sink).configure()
    graph.push(frame)
    return np.array(graph.pull().to_ndarray())


def sequential(path: Path, *, images: bool = True) -> list[tuple[float, Image | None]]:
    """Time in seconds and RGB of every frame that a decode from start to end gives, the decoder's rejects left out."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        for packet in container.demux(stream):
            frames += [(float(f.time), to_rgb(f) if images else None) for f in packet.decode() if not f.is_corrupt]
    return frames
