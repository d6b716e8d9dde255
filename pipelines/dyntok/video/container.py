"""Opening a container with PyAV so that it reads the bytes it was given, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import av.error
from av.stream import Discard, Disposition

from dyntok.errors import VideoError
from dyntok.records import SourceRef
from dyntok.video.damage import is_cut
from dyntok.video.settings import DecodeLimits
from dyntok.video.sniff import SNIFF_BYTES, sniff_container
from dyntok.video.sources import SourceFile, display_name

# FFmpeg's names of containers, where they are not ours.
_DEMUXERS = {"mp4": "mov", "mpegps": "mpeg"}
_BUFFER_BYTES = 1 << 17
_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# What decoders report for bits that make no sense. `explode` makes them give up on a broken picture, where the
# default is to conceal it.
_ERROR_DETECTION = "crccheck+buffer+explode"


def _refuse(*_: Any) -> None:
    raise PermissionError("a video file may not open other files")


class OpenVideo:
    """One open video file and its best video stream. Close it, or use it as a context manager.

    Attributes:
        input: PyAV's container.
    """

    def __init__(self, ref: SourceRef, name: str | None, limits: DecodeLimits) -> None:
        self.ref = ref
        self.name = name or display_name(ref)
        self.limits = limits
        self.source = SourceFile(ref, self.name)
        self.input: Any = None
        try:
            with self.errors("opened"):
                self.container = self._sniff()
                self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def codec(self) -> str:
        """FFmpeg's name of the coding (`h264`, `av1`), whichever decoder is used."""
        return str(self.context.codec.canonical_name)

    def check_size(self, width: int, height: int) -> None:
        """Raise VideoError `too_large` for a picture beyond the limit."""
        if width * height > self.limits.max_pixels:
            raise VideoError(
                "too_large",
                f"{self.name} has {width}x{height} pixels, more than {self.limits.max_pixels}",
                hint="raise --max-pixels",
            )

    def reopen(self) -> None:
        """Start again at the first byte, with a fresh decoder."""
        with self.errors("opened"):
            self.input.close()
            self._open()

    def close(self) -> None:
        if self.input is not None:
            self.input.close()
            self.input = None
        self.source.close()

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn whatever PyAV raises into a VideoError that names the file."""
        try:
            yield
        except VideoError as error:
            if error.code in ("no_video_stream", "unsupported_codec") and is_cut(self.source, self.container):
                raise self._truncated() from error
            raise self.named(error) from error
        except MemoryError as error:
            raise VideoError("memory", f"{self.name} needs more memory than the limit") from error
        except (
            av.error.FFmpegError,
            OSError,
            ValueError,
            RuntimeError,
            LookupError,
            ArithmeticError,
        ) as error:
            self.source.check()
            if what == "opened" and is_cut(self.source, self.container):
                raise self._truncated() from error
            raise VideoError("corrupt", f"{self.name} cannot be {what}: {reason(error)}") from error
        self.source.check()

    def named(self, error: VideoError) -> VideoError:
        """The same error with the file's name in its message."""
        if self.name in error.message:
            return error
        return VideoError(error.code, f"{self.name}: {error.message}", hint=error.hint)

    def _truncated(self) -> VideoError:
        return VideoError("truncated", f"{self.name} ends early", hint="fetch the file again")

    def _sniff(self) -> str:
        self.source.seek(0)
        head = b""
        while len(head) < SNIFF_BYTES and (part := self.source.read(SNIFF_BYTES - len(head))):
            head += part
        return sniff_container(head)

    def _open(self) -> None:
        self.source.seek(0)
        # For pictures that grow in the middle of a stream. Decoders count their padding too.
        most_pixels = str(2 * self.limits.max_pixels + (1 << 16))
        options = {"max_pixels": most_pixels, "protocol_whitelist": "none"}
        if self.container == "mp4":
            options |= {"enable_drefs": "0", "use_absolute_path": "0"}
        self.input = av.open(
            self.source,
            format=_DEMUXERS.get(self.container, self.container),
            container_options=options,
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            io_open=_refuse,
        )
        self.stream = self._best_stream()
        self.context = self.stream.codec_context
        if self.context is None:
            raise VideoError("unsupported_codec", f"{self.name}: there is no decoder for its video stream")
        self.check_size(self.context.width, self.context.height)
        for stream in self.input.streams:
            if stream.index != self.stream.index:
                stream.discard = Discard.all
        self.context.thread_count = 1
        self.context.thread_type = "NONE"
        self.context.options = {"err_detect": _ERROR_DETECTION, "max_pixels": most_pixels}

    def _best_stream(self) -> Any:
        best = self.input.streams.best("video")
        if best is not None and not best.disposition & _STILLS:
            return best
        moving = [s for s in self.input.streams.video if not s.disposition & _STILLS]
        if not moving:
            raise VideoError("no_video_stream", f"{self.name} holds no video stream")
        return max(moving, key=lambda s: (s.width or 0) * (s.height or 0))


def reason(error: BaseException) -> str:
    """A short text of an error, the same on every run: FFmpeg's own, or the name of the exception."""
    return getattr(error, "strerror", None) or type(error).__name__
