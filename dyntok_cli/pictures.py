"""The pictures of `dyntok inspect`: from flags to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dyntok_cli.output import Output

if TYPE_CHECKING:
    from dyntok.load import Store
    from dyntok.pictures import SourceVideo, VideoPictures

SIDES = {"png": 560, "sheet": 280, "clip": 420}
TILES, RATE = 12, 4.0


@dataclass(frozen=True, slots=True)
class PictureFlags:
    """Flags about pictures as they were given; None and False where they were not."""

    png: str | None = None
    contact_sheet: str | None = None
    clip: str | None = None
    frame: int | None = None
    time: float | None = None
    similarity: bool = False
    tiles: int | None = None
    rate: float | None = None
    size: int | None = None
    source: str | None = None
    no_source: bool = False

    @property
    def files(self) -> list[str]:
        """The files to write."""
        return [path for path in (self.png, self.contact_sheet, self.clip) if path is not None]

    def check(self) -> None:
        """Raise UsageError for flags without effect and for names of files that do not say what they are."""
        from dyntok.errors import UsageError

        needs = (
            ("--frame", self.frame is not None, "--png FILE.png", self.png),
            ("--time", self.time is not None, "--png FILE.png", self.png),
            ("--tiles", self.tiles is not None, "--contact-sheet FILE.png", self.contact_sheet),
            ("--rate", self.rate is not None, "--clip FILE.mp4", self.clip),
            ("--similarity", self.similarity, "--png FILE.png", self.files),
            ("--size", self.size is not None, "--png FILE.png", self.files),
            ("--source", self.source is not None, "--png FILE.png", self.files),
            ("--no-source", self.no_source, "--png FILE.png", self.files),
        )
        for flag, given, file, there in needs:
            if given and not there:
                raise UsageError(f"{flag} is about a picture, and none was asked for", hint=f"add {file}")
        for one, other, both in (
            ("--frame", "--time", self.frame is not None and self.time is not None),
            ("--source", "--no-source", self.source is not None and self.no_source),
        ):
            if both:
                raise UsageError(f"{one} and {other} exclude each other", hint="give one of them")
        if self.files:
            self._check_names()

    def _check_names(self) -> None:
        from dyntok.pictures.files import MOVIES, check_suffix

        for path in (self.png, self.contact_sheet):
            if path is not None:
                check_suffix(path, [".png"])
        if self.clip is not None:
            check_suffix(self.clip, MOVIES)


def write_pictures(
    output: Output, opened: Store, video_id: str, thresholds: Sequence[float], flags: PictureFlags
) -> list[str]:
    """Draw what was asked for; returns the files. Says on stderr what was written and where the source is missing."""
    from dyntok.pictures import write_movie, write_png

    source = None if flags.no_source else _source(output, opened, video_id, flags.source)

    def drawer(kind: str) -> VideoPictures:
        from dyntok.pictures import VideoPictures, Views

        views = Views(tuple(thresholds), flags.similarity, flags.size or SIDES[kind])
        return VideoPictures(opened, video_id, views, source)

    if flags.png is not None:
        pictures = drawer("png")
        position = pictures.frame_count // 2 if flags.frame is None else flags.frame
        if flags.time is not None:
            position = pictures.nearest(flags.time)
        write_png(flags.png, pictures.frame(position))
        output.note(f"wrote {flags.png}: frame {position}")
    if flags.contact_sheet is not None:
        write_png(flags.contact_sheet, drawer("sheet").sheet(flags.tiles or TILES))
        output.note(f"wrote {flags.contact_sheet}")
    if flags.clip is not None:
        frames = write_movie(flags.clip, drawer("clip").clip(), flags.rate or RATE)
        output.note(f"wrote {flags.clip}: {frames} frames")
    return flags.files


def _source(output: Output, opened: Store, video_id: str, path: str | None) -> SourceVideo | None:
    """The source, None with a note where it cannot be had. Raises VideoError if it is another file by now."""
    from dyntok.errors import VideoError
    from dyntok.pictures import SourceVideo

    try:
        return SourceVideo.of(opened, video_id, opened[video_id].head.frames, path)
    except VideoError as error:
        if error.code == "changed" or path is not None:
            raise
        output.note(f"drawing the patch grid alone: {error.message}")
        return None
