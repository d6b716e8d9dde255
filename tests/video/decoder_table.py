"""Which decoder `auto` takes for each file, and how long both take: `python -m tests.video.decoder_table FILE...`

Times are CPU seconds of decoding without resizing, in one process, of 16 frames and of all frames.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from dyntok.errors import VideoError
from dyntok.records import SourceRef
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames


def row(path: Path) -> str:
    try:
        _, about = _run(path, "auto", Sampling(16))
    except VideoError as error:
        return f"| {path.name} | {error.code} | {error.message} | | |"
    times = []
    for sampling in (Sampling(16), Sampling(None, fps=1e4)):
        ours, _ = _run(path, "pyav", sampling)
        try:
            theirs, _ = _run(path, "decord", sampling)
            times.append(f"{ours:.3f} : {theirs:.3f}")
        except VideoError as error:
            times.append(f"{ours:.3f} : {error.message.rsplit(': ', 1)[-1]}")
    return f"| {path.name} | {about} | {times[0]} | {times[1]} |"


def _run(path: Path, backend: str, sampling: Sampling) -> tuple[float, str]:
    settings = DecodeSettings(sampling, DecodeLimits(), 16, 16, backend=backend)  # type: ignore[arg-type]
    since = time.process_time()
    with decode_frames(SourceRef(str(path)), settings) as video:
        for _ in video.images():
            pass
        info = video.info
        seconds = time.process_time() - since - video.stages["resize"]
        return seconds, f"{info.decoder} | {info.frames_total} frames, {info.codec} in {info.container}"


def main() -> None:
    torch.set_num_threads(1)
    print("| file | decoder | stream | 16 frames, PyAV : decord | all frames, PyAV : decord |")
    print("|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print(row(Path(name)), flush=True)


if __name__ == "__main__":
    main()
