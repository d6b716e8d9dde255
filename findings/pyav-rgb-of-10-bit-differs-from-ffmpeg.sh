#!/usr/bin/env bash
# PyAV's `frame.to_ndarray(format="rgb24")` and the `scale` filter of the FFmpeg that PyAV ships give other pictures for 10 bits.
#
# Guess: both are libswscale with the same flags, so the same frame has the same RGB values; for 8-bit 4:2:0 it has.
# Behaviour: for 10-bit 4:2:0 they are up to 50 of 255 levels apart at the edges of colours, and 2 % of all values are
# more than 8 apart. The ffmpeg program and decord agree with the filter. So a loader that was checked on 8-bit clips
# gives other pictures for 10-bit ones (phones, HDR, most AV1 and HEVC masters) than one that goes through ffmpeg.
#
# Versions: av 18.1.0 (libswscale 9.5.102), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen:
#   yuv420p10le: largest difference 50, share above 8 levels 0.020
#   yuv420p: largest difference 0, share above 8 levels 0.000
# Exits 1 if it is otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys
from fractions import Fraction

import av
import numpy as np


def clip(path, pixels):
    """Eight frames of saturated gradients."""
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    with av.open(path, "w") as out:
        stream = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, pixels
        for number in range(8):
            image = np.stack([(2 * x + 8 * number) % 256, 3 * y % 256, (x + y) % 256], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def by_filter(stream, frame):
    """As the ffmpeg program does it."""
    graph = av.filter.Graph()
    source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
    graph.link_nodes(source, graph.add("scale", "flags=bicubic"), graph.add("format", "rgb24"), sink).configure()
    graph.push(frame)
    return graph.pull().to_ndarray().astype(int)


apart = {}
for pixels in ("yuv420p10le", "yuv420p"):
    clip(f"{pixels}.mp4", pixels)
    with av.open(f"{pixels}.mp4") as video:
        frame = next(video.decode(video=0))
        difference = abs(frame.to_ndarray(format="rgb24").astype(int) - by_filter(video.streams.video[0], frame))
    print(f"{pixels}: largest difference {difference.max()}, share above 8 levels {(difference > 8).mean():.3f}")
    apart[pixels] = difference.max()
sys.exit(0 if apart["yuv420p10le"] > 8 and apart["yuv420p"] == 0 else 1)
PY
