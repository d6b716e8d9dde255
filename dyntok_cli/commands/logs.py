"""`dyntok logs`: what the runs of a store wrote down."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from dyntok_cli.options import Debug, Json, Store
from dyntok_cli.output import Output, print_text
from dyntok_cli.tables import count, duration, size, table

# Long, and to be had with --json.
_LEFT_OUT = frozenset({"time", "event", "run", "job_index", "config", "software", "stage_seconds"})


def logs(
    store: Store,
    *,
    failed: Annotated[bool, Option("--failed", help="The failed videos, with class, attempts and message.")] = False,
    shard: Annotated[int | None, Option(metavar="N", min=0, help="Only what concerns this shard.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what the runs of a store wrote down.

    Events of all runs by time; or, with --failed, the videos whose latest attempt failed, from the completion records.
    """
    from dyntok.records import reason
    from dyntok.run import failed_videos, run_events

    output = Output(json=json)
    if failed:
        videos = failed_videos(store, shard=shard)
        rows = [(v.id, str(v.shard), v.error_class, str(v.attempts), reason(v.id, v.error)) for v in videos]
        headers = ("failed video", "shard", "error class", "attempts", "reason")
        text = table(headers, rows) if rows else "no video failed"
        output.report({"failed": [video.to_json() for video in videos]}, text)
        return
    events = run_events(store, shard=shard)
    if json:
        output.report({"events": list(events)}, "")
        return
    for event in events:
        print_text(event_line(event))


def event_line(event: dict[str, Any]) -> str:
    """`2026-01-01T12:00:00 job 3 shard shard=12 bytes=1 GB`."""
    job = "" if event["job_index"] is None else f"  job {event['job_index']}"
    fields = [f"{name}={_shown(name, value)}" for name, value in event.items() if name not in _LEFT_OUT]
    return "  ".join([f"{str(event['time'])[:19]}{job}", str(event["event"]), *fields])


def _shown(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return size(value) if name == "bytes" else count(value)
    return duration(value) if name == "seconds" and isinstance(value, float) else str(value)
