"""`dyntok convert`: the same store with other shards."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dyntok_cli.options import Debug, Json, Quiet, Store
from dyntok_cli.output import Output
from dyntok_cli.tables import count, pairs, size


def convert(
    source: Store,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Folder or URL of the new store.")],
    *,
    format: Annotated[Literal["webdataset", "zarr"], typer.Option("--format", help="Shards of the new store.")],
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rewrite a store with shards of another format.

    No video is decoded again. Everything is held against its digests on the way. Running the
    same command again resumes it.
    """
    from dyntok.run import convert as run_convert
    from dyntok_cli.progress import CountingBar

    output = Output(json=json, quiet=quiet)
    with CountingBar(output, "converting", "shard") as bar:
        report = run_convert(source, target, format=format, on_progress=bar)
    already = f" ({count(report.already)} by earlier calls)" if report.already else ""
    lines = [
        ("from", report.source),
        ("to", f"{report.target}, {report.format}"),
        ("shards", f"{count(report.shards)}{already}, {size(report.bytes)}"),
        ("videos", count(report.videos)),
    ]
    output.report(report.to_json(), pairs(lines))
