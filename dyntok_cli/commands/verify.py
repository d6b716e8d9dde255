"""`dyntok verify`: find damage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from dyntok_cli import errors
from dyntok_cli.options import Debug, Json, Quiet, Store
from dyntok_cli.output import Output
from dyntok_cli.tables import count, pairs, several, size, table

SHOWN_VIDEOS = 3

if TYPE_CHECKING:
    from dyntok.store import RepairReport, VerifyReport


def verify(
    store: Store,
    *,
    jobs: Annotated[int, Option("--jobs", "-j", min=1, max=256, help="Shards checked at once.")] = 1,
    shallow: Annotated[bool, Option("--shallow", help="Check digests only; do not look into the shards.")] = False,
    repair: Annotated[
        bool,
        Option("--repair", help="Mend what can be mended; set aside what cannot, so that encode makes it again."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find damage in a store.

    Holds every byte against its digest, and the parts of the store against each other.
    A store that is still being written is checked as far as it is committed. Exit code 4 means damage.
    With --repair, exit code 4 means that damage is left.
    """
    output = Output(json=json, quiet=quiet)
    report: RepairReport | VerifyReport
    if repair:
        from dyntok.run import repair as run_repair

        report = mended = run_repair(store)
        text, commands = repair_text(mended), mended.commands
    else:
        from dyntok.store import verify as run_verify
        from dyntok_cli.progress import CountingBar

        with CountingBar(output, "verifying", "B") as bar:
            report = found = run_verify(store, jobs=jobs, deep=not shallow, on_progress=bar)
        text, commands = verify_text(found), found.repair if found.findings else ()
    output.report(report.to_json(), text)
    if commands:
        output.hint("\n      ".join(f"`{command}`" for command in commands))
    if not report.ok:
        raise typer.Exit(errors.DAMAGE)


def repair_text(report: RepairReport) -> str:
    """What was found and done."""
    found = several(len(report.before.findings), "finding") if report.before.findings else "no damage"
    lines = [("store", report.url), ("result", found)]
    if report.set_aside:
        lines.append(("set aside in", f"{report.url}/{report.set_aside}"))
    parts = [pairs(lines)]
    if report.mended:
        parts.append(table(("done", "file", "how"), [(m.what, m.path, m.message) for m in report.mended]))
    return "\n\n".join(parts)


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
        rows = [(f.kind, f.path, _some(f.videos), f.message) for f in report.findings]
        parts.append(table(("finding", "file", "videos", "what"), rows))
    return "\n\n".join(parts)


def _some(videos: tuple[str, ...]) -> str:
    """The first few ids."""
    more = f" and {count(len(videos) - SHOWN_VIDEOS)} more" if len(videos) > SHOWN_VIDEOS else ""
    return ", ".join(videos[:SHOWN_VIDEOS]) + more
