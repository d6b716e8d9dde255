"""`dyntok inspect`: what a store, or one video of it, holds, in figures and pictures."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dyntok_cli.options import Debug, Json, Quiet, Store
from dyntok_cli.output import Output
from dyntok_cli.pictures import PictureFlags, write_pictures
from dyntok_cli.tables import count, duration, pairs, ratio, size, table

if TYPE_CHECKING:
    from torch import Tensor

    from dyntok.load import Store as OpenStore
    from dyntok.records import VideoRow

_MOST_IDS_TO_COMPARE = 20_000


def inspect(
    store: Store,
    video_id: Annotated[str | None, Argument(metavar="ID", help="Show this video.", show_default=False)] = None,
    *,
    threshold: Annotated[
        list[str] | None,
        Option(
            metavar="T,T,...",
            help="Count the video's tokens at these thresholds, draw its groups at them. May be repeated.",
        ),
    ] = None,
    budget: Annotated[
        int | None, Option(min=1, help="At the largest threshold that fits so many tokens and row markers.")
    ] = None,
    png: Annotated[
        str | None, Option(metavar="FILE.png", help="Draw one frame: merged patches grey, groups bordered.")
    ] = None,
    frame: Annotated[
        int | None,
        Option(metavar="N", help="With --png: this one of the stored frames. [default: the middle]"),
    ] = None,
    time: Annotated[float | None, Option(metavar="SECONDS", help="With --png: the frame nearest to it.")] = None,
    contact_sheet: Annotated[str | None, Option(metavar="FILE.png", help="Draw frames over the whole time.")] = None,
    tiles: Annotated[
        int | None, Option(min=1, help="With --contact-sheet: at most so many frames. [default: 12]")
    ] = None,
    clip: Annotated[str | None, Option(metavar="FILE.mp4", help="Draw every stored frame, as .mp4 or .gif.")] = None,
    rate: Annotated[float | None, Option(min=0.1, max=60, help="With --clip: frames a second. [default: 4]")] = None,
    similarity: Annotated[
        bool, Option("--similarity", help="Draw the similarity to the left neighbour beside it.")
    ] = False,
    size: Annotated[int | None, Option(metavar="PIXELS", help="Longer side of each picture of a frame.")] = None,
    source: Annotated[str | None, Option(metavar="FILE", help="Where the source's file is now.")] = None,
    no_source: Annotated[
        bool, Option("--no-source", help="Draw the patch grid alone; the source is not read.")
    ] = False,
    ids: Annotated[bool, Option("--ids", help="List the ids of the store, one on a line.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show how a store was made, or one video, also in pictures.

    With ID: the frames of that video and their tokens, at any thresholds or for a token budget, and pictures of what
    was merged.
    """
    import dyntok

    chosen = _thresholds(threshold)
    flags = PictureFlags(png, contact_sheet, clip, frame, time, similarity, tiles, rate, size, source, no_source)
    _check(store, video_id, chosen, budget, flags)
    opened = dyntok.open(store)
    output = Output(json=json, quiet=quiet)
    if ids:
        output.report({"ids": opened.ids}, "\n".join(opened.ids))
    elif video_id is None:
        document = store_document(opened)
        output.report(document, store_text(store, document))
    else:
        document = video_document(opened, video_id, chosen, budget)
        if flags.files:
            drawn = [level["threshold"] for level in document["levels"]]
            document["pictures"] = write_pictures(output, opened, video_id, drawn, flags)
        output.report(document, video_text(document))


def _thresholds(texts: list[str] | None) -> list[float]:
    """The numbers of `--threshold`, comma-separated or repeated, each once. Raises UsageError for anything else."""
    from dyntok.errors import UsageError

    try:
        numbers = [float(part) for text in texts or [] for part in text.split(",")]
    except ValueError:
        numbers = [float("nan")]
    if any(number != number for number in numbers):
        raise UsageError(
            f"--threshold {','.join(texts or [])} is no list of numbers", hint="write --threshold 0.4,0.5,0.6"
        )
    return list(dict.fromkeys(numbers))


def _check(store: str, video_id: str | None, thresholds: list[float], budget: int | None, flags: PictureFlags) -> None:
    """Raise UsageError for flags that have no effect together."""
    from dyntok.errors import UsageError

    if video_id is None and (thresholds or budget is not None or flags != PictureFlags()):
        raise UsageError("thresholds, budgets and pictures are about one video", hint=f"dyntok inspect {store} ID ...")
    if budget is not None and len(thresholds) > 1:
        raise UsageError("a budget has one threshold at most", hint="leave out --budget, or all but one")
    flags.check()


def store_document(opened: OpenStore) -> dict[str, Any]:
    """`dataset.json` and how many videos there are."""
    return {**opened.info.to_json(), "videos": len(opened.index), "done": len(opened)}


def store_text(url: str, document: dict[str, Any]) -> str:
    """`store_document` as text."""
    model, grid, config = document["model"], document["grid"], document["config"]
    uniform = f"{config.get('frames')} frames a video, uniformly"
    cap = f", at most {config['max_frames']}" if config.get("max_frames") else ""
    lines = [
        ("store", f"{url}, format {document['format_version']}"),
        ("videos", f"{count(document['done'])} of {count(document['videos'])}"),
        (
            "model",
            f"{model.get('name')} ({model.get('kind')}), fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        ("sampling", f"{config['fps']:g} frames a second{cap}" if config.get("fps") else uniform),
        ("grid", f"{grid['rows']} x {grid['cols']} patches a frame"),
        ("tokens", f"{document['token_dim']} x {document['dtype']}, space {document['space']}"),
        (
            "thresholds",
            f"{', '.join(f'{t:g}' for t in document['thresholds'])}; any up to the last can be read",
        ),
        ("shards", f"{document['shard_format']}, {document['layout']} layout"),
        ("made with", ", ".join(f"{name} {version}" for name, version in document["software"].items())),
    ]
    return pairs(lines)


def video_document(opened: OpenStore, video_id: str, thresholds: list[float], budget: int | None) -> dict[str, Any]:
    """One video's row, and its frames with their tokens at each threshold (the stored one by default).

    `levels` has all of them; `threshold`, `tokens_at_threshold` and `frame_tokens` are those of the first.
    """
    from dyntok.merging import threshold_for_budget

    row = _row(opened, video_id)
    video = opened[video_id]
    similarity = video.similarity
    frames, rows, _ = similarity.shape
    chosen = thresholds or [opened.info.stored_threshold]
    if budget is not None:
        chosen = [threshold_for_budget(similarity, budget, frames * rows, at_most=chosen[0])]
    levels = [_level(similarity, threshold) for threshold in chosen]
    return {
        "id": video_id,
        "source": row.source,
        "frames": row.frames,
        "seconds": row.seconds,
        "decoder": row.decoder,
        "patches": row.patches,
        "bytes": row.nbytes,
        "tokens": row.tokens,
        "threshold": levels[0]["threshold"],
        "tokens_at_threshold": levels[0]["tokens"],
        "row_markers": frames * rows,
        "frame_index": video.head.frames.frame_index.tolist(),
        "frame_pts": video.head.frames.frame_pts.tolist(),
        "frame_tokens": levels[0]["frame_tokens"],
        "levels": levels,
    }


def _level(similarity: Tensor, threshold: float) -> dict[str, Any]:
    from dyntok.merging import plan_from_similarity

    splits = plan_from_similarity(similarity, threshold).row_splits[:: similarity.shape[1]]
    return {"threshold": threshold, "tokens": int(splits[-1]), "frame_tokens": splits.diff().tolist()}


def video_text(document: dict[str, Any]) -> str:
    """`video_document` as text."""
    patches, frames, levels = document["patches"], document["frames"], document["levels"]
    markers = document["row_markers"]
    lines = [
        ("video", document["id"]),
        (
            "source",
            f"{document['source']}, {duration(document['seconds'])}, decoded by {document['decoder']}",
        ),
        ("stored", f"{count(frames)} frames, {count(patches)} patches, {size(document['bytes'])}"),
        *((f"tokens at {name}", f"{count(n)}, {ratio(n, patches)}") for name, n in document["tokens"].items()),
        *(
            (
                "shown",
                f"threshold {level['threshold']:g}: {count(level['tokens'])} tokens, "
                f"{count(level['tokens'] + markers)} with row markers",
            )
            for level in levels
        ),
    ]
    each = patches / frames
    rows = [
        (
            str(n),
            str(document["frame_index"][n]),
            f"{document['frame_pts'][n]:.3f}",
            *(cell for level in levels for cell in _tokens_and_share(level["frame_tokens"][n], each)),
        )
        for n in range(frames)
    ]
    names = [("tokens", "kept")] if len(levels) == 1 else [(f"at {v['threshold']:g}", "kept") for v in levels]
    headers = ("frame", "index", "seconds", *(name for pair in names for name in pair))
    return f"{pairs(lines)}\n\n{table(headers, rows)}"


def _tokens_and_share(tokens: int, patches: float) -> tuple[str, str]:
    return str(tokens), ratio(tokens, patches)


def _row(opened: OpenStore, video_id: str) -> VideoRow:
    from dyntok.errors import UsageError

    try:
        _, row = opened.index.row(opened.index.position(video_id))
    except KeyError:
        similar = get_close_matches(video_id, opened.ids, 3) if len(opened) <= _MOST_IDS_TO_COMPARE else []
        hint = f"similar: {', '.join(similar)}" if similar else f"`dyntok inspect {opened.root.url} --ids` lists all"
        raise UsageError(f"there is no video {video_id} in {opened.root.url}", hint=hint) from None
    return row
