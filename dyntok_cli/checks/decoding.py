"""Whether videos can be decoded, and of which codecs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dyntok_cli.checks.finding import BAD, OK, WARN, Check, imported, version_of

CODECS = ("h264", "hevc", "av1", "vp9")
LIBRARIES = ("libavcodec", "libavformat", "libavutil", "libswscale")


def decoders() -> Iterator[Check]:
    """Versions of FFmpeg, and whether both libraries read a clip that is made here."""
    both = [name for name in ("decord", "decord2") if version_of(name)]
    if len(both) == 2:
        yield Check(
            "decoders",
            WARN,
            "decord and decord2 are both installed; they overwrite each other's files",
            "pip uninstall -y decord decord2 && pip install decord2",
        )
    av = imported("av")
    if av is None:
        return
    with tempfile.TemporaryDirectory(prefix="dyntok-doctor-") as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            frames = _write_clip(av, clip)
            with av.open(str(clip)) as container:
                found = sum(1 for _ in container.decode(video=0))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            yield Check("pyav", BAD, f"cannot write and read a clip: {error}", "pip install --upgrade av")
            return
        yield Check("ffmpeg", OK, f"{av.ffmpeg_version_info}: {_libraries(av)}")
        detail = f"PyAV {av.__version__}, read {found} of {frames} frames"
        yield Check("pyav", OK if found == frames else BAD, detail, "pip install --upgrade av" * (found != frames))
        yield from _decord(clip, frames)


def _decord(clip: Path, frames: int) -> Iterator[Check]:
    decord = imported("decord")
    if decord is None:
        return
    try:
        found = len(decord.VideoReader(str(clip), num_threads=1))
    except (RuntimeError, OSError) as error:  # DECORDError is a RuntimeError
        yield Check("decord", WARN, f"cannot read a clip: {error}", "use --decoder pyav")
        return
    yield Check("decord", OK, f"decord {decord.__version__}, read {found} of {frames} frames")


def codecs() -> Iterator[Check]:
    """Which of the usual codecs PyAV's FFmpeg decodes. Videos of another one fail as `unsupported_codec`."""
    av = imported("av")
    if av is None:
        return
    there = {name: decoder for name in CODECS if (decoder := _decoder(av, name))}
    missing = [name for name in CODECS if name not in there]
    found = ", ".join(name if decoder == name else f"{name} ({decoder})" for name, decoder in there.items())
    if missing:
        yield Check(
            "codecs",
            WARN,
            f"{found or 'none'}; no decoder for {', '.join(missing)}",
            "pip install --force-reinstall --only-binary :all: av (its wheels bring their own FFmpeg)",
        )
    else:
        yield Check("codecs", OK, found)


def _decoder(av: Any, name: str) -> str | None:
    """The decoder that FFmpeg takes for a codec, or None."""
    try:
        return str(av.codec.Codec(name, "r").name)
    except (ValueError, av.error.FFmpegError):  # UnknownCodecError is a ValueError
        return None


def _libraries(av: Any) -> str:
    versions = av.library_versions
    return ", ".join(f"{name} {'.'.join(map(str, versions[name]))}" for name in LIBRARIES if name in versions)


def _write_clip(av: Any, path: Path, frames: int = 6) -> int:
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            image = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return frames
