"""`logs/`: what each run did and when. Nothing else in a store holds a clock.

=============================  ======================================================================
`<run>.jsonl`                  events: started, a video failed, a shard was committed, ended, stopped
`<run>.shards.jsonl`           a summary of each completion record, which spares `status` the record
`<run>.json`                   how far the run is; written anew every few seconds
`metrics.prom`                 the same for Prometheus (`metrics-<job>.prom` in a job array)
=============================  ======================================================================

`<run>` is `run-<start>-<job>-<host>-<process>`. Object stores cannot append: there, lines go into parts,
`<run>.0001.jsonl`, every minute.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dyntok.errors import StoreError, UsageError
from dyntok.run.array import ArrayJob
from dyntok.store import StoreRoot
from dyntok.store.names import LOG_FOLDER
from dyntok.store.root import explain_os_error
from dyntok.urls import redact_text

PART_EVERY_S = 60.0

_FILE = re.compile(
    r"logs/(?P<run>run-(?P<start>\d{8}T\d{12}Z)(-job-(?P<index>\d{5,6})-of-(?P<count>\d{5,6}))?-[A-Za-z0-9-]+)"
    r"\.(?P<kind>json|(shards\.)?([0-9]+\.)?jsonl)"
)


@dataclass(frozen=True, slots=True)
class LogFile:
    """What the path of a run's file says. `kind` is `state` (the JSON), `events` or `shards`; `start` sorts runs."""

    path: str
    run: str
    start: str
    job: ArrayJob | None
    kind: str

    @classmethod
    def parse(cls, path: str) -> LogFile | None:
        """None if `path` is no file of a run."""
        match = _FILE.fullmatch(path)
        if match is None:
            return None
        job = None
        if match["index"] is not None:
            with suppress(UsageError):
                job = ArrayJob(int(match["index"]), int(match["count"]))
        kind = match["kind"]
        name = "state" if kind == "json" else "shards" if kind.startswith("shards") else "events"
        return cls(path, match["run"], match["start"], job, name)


def log_files(root: StoreRoot) -> list[LogFile]:
    """The files of all runs, by path."""
    found = (LogFile.parse(path) for path in root.list(LOG_FOLDER))
    return [file for file in found if file is not None]


def new_run_name(job: ArrayJob | None = None) -> str:
    """A name that no other run has: by its start, job, machine and process."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:63]
    parts = ["run", stamp, *([job.name] if job else []), host, str(os.getpid())]
    return "-".join(parts)


class LineFile:
    """A file of JSON lines under `logs/`, written as they come, or in parts on an object store. Thread-safe."""

    def __init__(self, root: StoreRoot, stem: str) -> None:
        self._root, self._stem = root, f"{LOG_FOLDER}/{stem}"
        self._lines: list[bytes] = []
        self._parts = 0
        self._last_part = time.monotonic()
        self._lock = threading.Lock()
        self._local = root.local_path(f"{self._stem}.jsonl")

    def append(self, line: bytes) -> None:
        """Add one line, its end included. Raises StoreError when the disk is full."""
        with self._lock:
            if self._local is None:
                self._lines.append(line)
                return
            with explain_os_error(str(self._local), "write"):
                self._local.parent.mkdir(exist_ok=True)
                with open(self._local, "ab", buffering=0) as file:
                    rest = memoryview(line)
                    while rest:  # the kernel may write a part
                        rest = rest[file.write(rest) :]

    def flush(self, every_s: float = 0.0) -> None:
        """Upload what has come since the last part, if that is so long ago. Raises StoreError, and nothing is lost."""
        with self._lock:
            if self._lines and time.monotonic() - self._last_part >= every_s:
                self._last_part = time.monotonic()
                self._root.write_atomic(f"{self._stem}.{self._parts + 1:04d}.jsonl", b"".join(self._lines))
                self._parts += 1
                self._lines.clear()


class RunLog:
    """The events of a run, one JSON object a line."""

    def __init__(self, root: StoreRoot, name: str) -> None:
        self._file = LineFile(root, name)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the current time. Raises StoreError when the disk is full.

        Texts are those of any error, whose URLs may hold credentials: they are taken out.
        """
        shown = {name: redact_text(text) if isinstance(text, str) else text for name, text in fields.items()}
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **shown}, sort_keys=True)
        self._file.append(line.encode() + b"\n")
        with suppress(StoreError):  # tried again with the next event, and at the end
            self._file.flush(PART_EVERY_S)

    def close(self) -> None:
        """Write what is left. Raises StoreError."""
        self._file.flush()
