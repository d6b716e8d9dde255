"""Random access held against a full decode: `python -m tests.video.compare_with_ffmpeg FOLDER [--jobs 1] [--out FILE]`

For each video file below a folder: the number of frames, their times, and the raw planes of every frame of a short
clip, or of the first, the last and 24 others of a long one, each in a pass over all and by an opening of its own.
Prints one table and writes one JSON line a file. The newer FFmpeg (PyAV's) decides; where the `ffmpeg` program says
otherwise, the line tells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dyntok.corpus.items import VIDEO_SUFFIXES
from dyntok.errors import VideoError
from dyntok.records import SourceRef
from dyntok.video import DecodedVideo, DecodeLimits, DecodeSettings, Sampling
from dyntok.video.worker import limit_memory
from tests.video.full_decode import FullDecode, by_program, by_pyav, differences, picture_hash

TIME_LIMIT_S = 60.0
# Of that, for one pass over all frames, and for openings at single frames.
PASS_S = SINGLES_S = 25.0
SHORT_FRAMES = 2000
ALL_SINGLES = 60
SINGLES = 24
TIME_TOLERANCE_S = 1e-3
# What `files_below` takes beside dyntok's own suffixes: what it may refuse, but not unseen.
_FURTHER = ".264 .265 .asf .cmfv .divx .dv .h264 .hevc .ivf .m4s .mj2 .mjpeg .mjpg .obu .ps .rm .rmvb .y4m"
SUFFIXES = VIDEO_SUFFIXES | frozenset(_FURTHER.split())


def random_access(path: Path) -> dict[str, Any]:
    """What dyntok says of a file: count, times, hashes by position, and the errors it refused with."""
    said: dict[str, Any] = {"count": 0, "times": [], "pictures": [], "refused": []}
    settings = DecodeSettings(Sampling(None, fps=1e9), DecodeLimits(timeout_s=TIME_LIMIT_S), 16, 16)
    try:
        with DecodedVideo(SourceRef(str(path)), settings) as video:
            said["times"] = video.sampled.frame_pts.tolist()
            said["about"] = {"container": video.info.container, "codec": video.info.codec}
            said["decoder"] = video.info.decoder_reason
    except VideoError as error:
        said["refused"].append([-1, error.code, error.message])
        return said
    count = said["count"] = len(said["times"])
    draw = random.Random(path.name)
    singles = sorted({0, count - 1, *draw.sample(range(count), min(count, SINGLES))})
    if count <= ALL_SINGLES:
        singles = list(range(count))
    if count <= SHORT_FRAMES:
        _read(path, settings, list(range(count)), said, PASS_S)
    since = time.monotonic()
    for position in singles:
        if time.monotonic() - since < SINGLES_S:
            _read(path, settings, [position], said, SINGLES_S)
    return said


def _read(path: Path, settings: DecodeSettings, positions: list[int], said: dict[str, Any], limit_s: float) -> None:
    """Read frames in one go; after a refused one, go on behind it with a new opening."""
    until = time.monotonic() + limit_s
    while positions and time.monotonic() < until:
        hashes: list[str] = []
        done = 0
        try:
            with DecodedVideo(SourceRef(str(path)), settings) as video:
                video._convert = _hashing(hashes)  # type: ignore[assignment]
                for _ in video.source_images(positions):
                    said["pictures"].append([positions[done], hashes[-1]])
                    done += 1
                    if time.monotonic() > until:
                        return
                return
        except VideoError as error:
            said["refused"].append([positions[done], error.code, error.message])
            positions = positions[done + 1 :]


def _hashing(hashes: list[str]) -> Callable[[Any], Any]:
    def convert(frame: Any) -> Any:
        hashes.append(picture_hash(frame))
        return np.zeros((1, 1, 3), np.uint8)

    return convert


def verdict(truth: FullDecode, said: dict[str, Any]) -> tuple[str, str]:
    """The class of an outcome (`equal`, `refused`, `count`, `times`, `WRONG PICTURE`, `no frames`), and its detail."""
    kept = list(range(len(truth)))
    if said["count"] != len(truth):
        kept = [k for k in kept if not truth.broken[k]]
    times = [truth.times[k] for k in kept]
    pictures = [truth.pictures[k] for k in kept]
    if said["count"] != len(pictures):
        by_time = {round(t, 3): p for t, p in zip(times, pictures, strict=True) if t is not None}
        expected = [by_time.get(round(t, 3)) for t in said["times"]]
    else:
        expected = list(pictures)
    wrong = sorted({p for p, digest in said["pictures"] if expected[p] not in (digest, None)})
    if wrong:
        return "WRONG PICTURE", f"{len(wrong)} of {len(expected)} frames: {wrong[:8]}"
    if said["refused"]:
        where, code, message = said["refused"][0]
        lost = {p for p, *_ in said["refused"]}
        detail = f"{code}: {message}" + (f" ({len(lost)} of {said['count']} frames)" if where >= 0 else "")
        return ("refused" if len(truth) else "no frames"), detail
    if said["count"] != len(pictures):
        return "count", f"{said['count']} frames, not {len(pictures)}"
    begin = 0.0
    if truth.about.get("container") == "avi" and times[0] is not None:
        # It has decode times alone, and FFmpeg shows its first frame after as many as are reordered.
        begin = times[0] - said["times"][0]
    apart = [
        (k, ours, t - begin)
        for k, (ours, t) in enumerate(zip(said["times"], times, strict=True))
        if t is not None and abs(t - begin - ours) > TIME_TOLERANCE_S
    ]
    if apart:
        k, ours, right = apart[0]
        return "times", f"{len(apart)} of {len(times)}: frame {k} at {ours:.4f} s, not {right:.4f} s"
    notes = ["times count from the first frame"] if begin else []
    notes += ["some times are unknown"] if None in times else []
    return "equal", ", ".join(notes)


def compare(path: Path) -> dict[str, Any]:
    """The line of one file. Both sides run in processes of their own, with limits of time and memory."""
    line: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size}
    truth_data, how = _apart(lambda: asdict(by_pyav(path)))
    truth = FullDecode(**truth_data) if truth_data is not None else FullDecode(failed=how)
    line |= {"frames": len(truth), "errors": truth.errors, "broken": sum(truth.broken), **truth.about}
    line["failed"] = truth.failed
    try:
        older = by_program(path, max(truth.stream, 0), TIME_LIMIT_S)
        line["program_says"] = differences(truth, older)
        truth.times = _known_times(truth, older)
    except subprocess.TimeoutExpired:
        line["program_says"] = "timeout"
    since = time.monotonic()
    said, how = _apart(lambda: random_access(path))
    line["seconds"] = round(time.monotonic() - since, 1)
    if said is None:
        line["outcome"], line["detail"] = how.split(": ", 1)[0], how
        return line
    line["outcome"], line["detail"] = verdict(truth, said)
    line |= {"said": said["count"], "compared": len({p for p, _ in said["pictures"]})}
    line["refused"] = said["refused"][:5]
    line["decoder"] = said.get("decoder", "")
    return line


def _known_times(truth: FullDecode, older: FullDecode) -> list[float | None]:
    """A decoder's own times where it has them in order, else those that the program made out of them."""
    own = [time for time in truth.times if time is not None]
    if len(own) == len(truth) and own == sorted(own):
        return truth.times
    return older.times if len(older.times) == len(truth) else truth.times


def _apart(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """The result of `work` in a child process; or None, and `timeout` or `crash: how`."""
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    child = forking.Process(target=_child, args=(theirs, work))
    child.start()
    theirs.close()
    try:
        result: dict[str, Any] = json.loads(ours.recv_bytes()) if ours.poll(TIME_LIMIT_S) else {"how": "timeout"}
    except EOFError:
        child.join()
        result = {"how": f"crash: exit status {child.exitcode}"}
    finally:
        child.kill()
        child.join()
        ours.close()
    return result.get("value"), result.get("how", "")


def _child(connection: multiprocessing.connection.Connection, work: Callable[[], dict[str, Any]]) -> None:
    limit_memory(DecodeLimits().memory_bytes)
    try:
        result = {"value": work()}
    except Exception as error:  # noqa: BLE001
        result = {"how": f"crash: {type(error).__name__}: {error}"}  # type: ignore[dict-item]
    connection.send_bytes(json.dumps(result).encode())


def files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: outcomes by container and codec; files of which FFmpeg itself decodes nothing are apart."""
    outcomes = sorted({line["outcome"] for line in lines}, key=lambda o: (o != "equal", o))
    rows: dict[str, Counter[str]] = {}
    for line in lines:
        kind = f"{line.get('container', 'unknown')}, {line.get('codec', 'none')}" if line["frames"] else "undecodable"
        rows.setdefault(kind, Counter())[line["outcome"]] += 1
        rows.setdefault("all that FFmpeg decodes" if line["frames"] else "~", Counter())[line["outcome"]] += 1
    rows.pop("~", None)
    text = [f"| container, codec | {' | '.join(outcomes)} |", "|---" * (len(outcomes) + 1) + "|"]
    text += [f"| {kind} | {' | '.join(str(rows[kind][o]) for o in outcomes)} |" for kind in sorted(rows)]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(os.devnull))
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = [path for given in args.folder for path in ([given] if given.is_file() else files_below(given))]
    lines = []
    forking = multiprocessing.get_context("fork")
    with open(args.out, "w") as out, ProcessPoolExecutor(args.jobs, mp_context=forking) as pool:
        for line in pool.map(compare, files):
            lines.append(line)
            out.write(json.dumps(line) + "\n")
            out.flush()
            print(line["file"], line["outcome"], line["detail"], file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
