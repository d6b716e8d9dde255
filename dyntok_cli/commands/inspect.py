"""`dyntok inspect`: what a store, or one video of it, holds."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyntok_cli.options import Debug, Json, Store
from dyntok_cli.output import Output
from dyntok_cli.tables import count, duration, pairs, ratio, size, table

if TYPE_CHECKING:
    from dyntok.load import Store as OpenStore
    from dyntok.records import VideoRow

_MOST_IDS_TO_COMPARE = 20_000


def inspect(
    store: Store,
    video_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Show this video.", show_default=False)
    ] = None,
    *,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Count the video's tokens at this threshold.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget", min=1, help="At the largest threshold that fits so many tokens and row markers."
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="List the ids of the store, one on a line.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how a store was made, or one video of it.

    With ID: the frames of that video and their tokens, at any threshold or for a token budget.
    """
    import dyntok
    from dyntok.errors import UsageError

    if video_id is None and (threshold is not None or budget is not None):
        raise UsageError(
            "--threshold and --budget are about one video", hint=f"dyntok inspect {store} ID ..."
        )
    opened = dyntok.open(store)
    output = Output(json=json)
    if ids:
        output.report({"ids": opened.ids}, "\n".join(opened.ids))
    elif video_id is None:
        document = store_document(opened)
        output.report(document, store_text(store, document))
    else:
        document = video_document(opened, video_id, threshold, budget)
        output.report(document, video_text(document))


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


def video_document(
    opened: OpenStore, video_id: str, threshold: float | None, budget: int | None
) -> dict[str, Any]:
    """One video's row, and its frames with their tokens at a threshold (the stored one by default)."""
    from dyntok.merging import plan_from_similarity, threshold_for_budget

    row = _row(opened, video_id)
    video = opened[video_id]
    similarity = video.similarity
    frames, rows, _ = similarity.shape
    chosen = opened.info.stored_threshold if threshold is None else threshold
    if budget is not None:
        chosen = threshold_for_budget(similarity, budget, frames * rows, at_most=chosen)
    splits = plan_from_similarity(similarity, chosen).row_splits[::rows]
    return {
        "id": video_id,
        "source": row.source,
        "frames": row.frames,
        "seconds": row.seconds,
        "decoder": row.decoder,
        "patches": row.patches,
        "bytes": row.nbytes,
        "tokens": row.tokens,
        "threshold": chosen,
        "tokens_at_threshold": int(splits[-1]),
        "row_markers": frames * rows,
        "frame_index": video.head.frames.frame_index.tolist(),
        "frame_pts": video.head.frames.frame_pts.tolist(),
        "frame_tokens": splits.diff().tolist(),
    }


def video_text(document: dict[str, Any]) -> str:
    """`video_document` as text."""
    patches, frames = document["patches"], document["frames"]
    tokens, markers = document["tokens_at_threshold"], document["row_markers"]
    lines = [
        ("video", document["id"]),
        (
            "source",
            f"{document['source']}, {duration(document['seconds'])}, decoded by {document['decoder']}",
        ),
        ("stored", f"{count(frames)} frames, {count(patches)} patches, {size(document['bytes'])}"),
        *(
            (f"tokens at {name}", f"{count(n)}, {ratio(n, patches)}")
            for name, n in document["tokens"].items()
        ),
        (
            "shown",
            f"threshold {document['threshold']:g}: {count(tokens)} tokens, "
            f"{count(tokens + markers)} with row markers",
        ),
    ]
    columns = zip(document["frame_index"], document["frame_pts"], document["frame_tokens"], strict=True)
    rows = [
        (str(n), str(index), f"{pts:.3f}", str(tokens), ratio(tokens, patches / frames))
        for n, (index, pts, tokens) in enumerate(columns)
    ]
    return f"{pairs(lines)}\n\n{table(('frame', 'index', 'seconds', 'tokens', 'kept'), rows)}"


def _row(opened: OpenStore, video_id: str) -> VideoRow:
    from dyntok.errors import UsageError

    try:
        _, row = opened.index.row(opened.index.position(video_id))
    except KeyError:
        similar = get_close_matches(video_id, opened.ids, 3) if len(opened) <= _MOST_IDS_TO_COMPARE else []
        hint = (
            f"similar: {', '.join(similar)}"
            if similar
            else f"`dyntok inspect {opened.root.url} --ids` lists all"
        )
        raise UsageError(f"there is no video {video_id} in {opened.root.url}", hint=hint) from None
    return row
