"""`dyntok verify`: find damage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dyntok_cli import errors
from dyntok_cli.options import Debug, Json, Quiet, Store
from dyntok_cli.output import Output
from dyntok_cli.tables import count, pairs, several, size, table

if TYPE_CHECKING:
    from dyntok.store import VerifyReport


def verify(
    store: Store,
    *,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Shards checked at once.")] = 1,
    shallow: Annotated[
        bool, typer.Option("--shallow", help="Check digests only; do not look into the shards.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find damage in a store.

    Holds every byte against its digest, and the parts of the store against each other.
    A store that is still being written is checked as far as it is committed. Exit code 4 means damage.
    """
    from dyntok.store import verify as run_verify
    from dyntok_cli.progress import CountingBar

    output = Output(json=json, quiet=quiet)
    with CountingBar(output, "verifying", "B") as bar:
        report = run_verify(store, jobs=jobs, deep=not shallow, on_progress=bar)
    output.report(report.to_json(), verify_text(report))
    if not report.ok:
        output.hint("copy the damaged files again from where they are sound, or encode into a new --out")
        raise typer.Exit(errors.DAMAGE)


def verify_text(report: VerifyReport) -> str:
    """Findings, if any, and what was checked."""
    found = several(len(report.findings), "finding") if report.findings else "no damage"
    lines = [
        ("store", report.url),
        ("result", found if report.complete else f"{found}; the store is not complete"),
        ("checked", f"{several(report.files, 'file')}, {size(report.bytes)}"),
        (
            "shards",
            f"{count(report.shards)}, with {count(report.done)} videos done, {count(report.failed)} failed",
        ),
    ]
    parts = [pairs(lines)]
    if report.notes:
        parts.append("\n".join(report.notes))
    if report.findings:
        rows = [(f.kind, f.path, f.video, f.message) for f in report.findings]
        parts.append(table(("finding", "file", "video", "what"), rows))
    return "\n\n".join(parts)
