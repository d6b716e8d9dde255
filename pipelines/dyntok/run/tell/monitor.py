"""Counts what a run tells, and writes it down while the run goes on."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from dyntok.durable import replaced
from dyntok.errors import DyntokError, StoreError, UsageError
from dyntok.records import VideoRow
from dyntok.run.array import ArrayJob
from dyntok.run.tell.metrics import render
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.run.tell.rates import difference
from dyntok.run.tell.runlog import LineFile
from dyntok.run.tell.snapshot import ENDED, RUNNING, STOPPED, Recent, RunSnapshot
from dyntok.run.tell.summaries import ShardSummary
from dyntok.store import StoreRoot
from dyntok.store.names import LOG_FOLDER
from dyntok.urls import redact, redact_text

LOCAL_EVERY_S, REMOTE_EVERY_S = 5.0, 30.0
RECENT_S = 120.0
# Counts of a run that its snapshot has under the same name.
COUNTS = (
    "done", "failed", "shards_done", "frames", "patches", "tokens", "nbytes", "decode_processes", "devices", "queued",
)  # fmt: skip


class RunMonitor(RunObserver):
    """An observer of one run. Its files under `logs/` are described in `dyntok.run.tell.runlog`.

    Use it as a context manager; it begins to write when it is told of a plan with work to do. Nothing that it fails
    to write stops the run.
    """

    def __init__(
        self,
        root: StoreRoot,
        clock: StageClock,
        *,
        name: str,
        job: ArrayJob | None = None,
        metrics_file: Path | None = None,
        every_s: float | None = None,
    ) -> None:
        self._root, self._clock, self._name, self._job = root, clock, name, job
        self._every_s = every_s or (LOCAL_EVERY_S if root.is_local else REMOTE_EVERY_S)
        self._metrics_file = metrics_file or default_metrics_file(root, job)
        self._summaries_file = LineFile(root, f"{name}.shards")
        self._started = time.time()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._share = (0, 0, 0, 0)
        self._samples: deque[tuple[float, int, int, dict[str, float]]] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.summaries: list[ShardSummary] = []

    def __enter__(self) -> RunMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        reason = "" if error is None else redact_text(f"{type(error).__name__}: {error}")
        self._write(ENDED if error is None else STOPPED, reason)
        with suppress(StoreError):
            self._summaries_file.flush()

    def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
        self._share = (videos, videos_done, shards, shards_done)
        if shards_done < shards and self._thread is None:
            self._write(RUNNING, "")
            thread = threading.Thread(target=self._run, name="dyntok-monitor", daemon=True)
            thread.start()
            self._thread = thread

    def remember(self, summaries: list[ShardSummary]) -> None:
        """Log summaries of shards that earlier runs committed and did not log."""
        for summary in summaries:
            self._log(summary)

    def workers(self, decode_processes: int, devices: int) -> None:
        with self._lock:
            self._counts["decode_processes"], self._counts["devices"] = decode_processes, devices

    def queued(self, batches: int) -> None:
        with self._lock:
            self._counts["queued"] = batches

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        with self._lock:
            self._counts.update(frames=frames, patches=patches, tokens=tokens)

    def video(self, row: VideoRow) -> None:
        with self._lock:
            self._counts[row.status] += 1
            if row.error_class:
                self._failures[row.error_class] += 1

    def committed(self, summary: ShardSummary) -> None:
        with self._lock:
            self._counts.update(shards_done=1, nbytes=summary.nbytes)
        self.summaries.append(summary)
        self._log(summary)

    def snapshot(self, state: str = RUNNING, reason: str = "") -> RunSnapshot:
        """How far the run is now."""
        now, seconds = time.time(), self._clock.seconds()
        with self._lock:
            counts, failures = Counter(self._counts), dict(sorted(self._failures.items()))
        videos, videos_before, shards, shards_before = self._share
        return RunSnapshot(
            run=self._name,
            state=state,
            host=socket.gethostname(),
            pid=os.getpid(),
            job_index=self._job.index if self._job else None,
            num_jobs=self._job.count if self._job else None,
            started=self._started,
            updated=now,
            every_s=self._every_s,
            videos=videos,
            videos_before=videos_before,
            shards=shards,
            shards_before=shards_before,
            failures=failures,
            stage_seconds=seconds,
            recent=self._recent(now, counts["done"] + counts["failed"], counts["frames"], seconds),
            reason=reason,
            **{name: counts[name] for name in COUNTS},
        )

    def _recent(self, now: float, videos: int, frames: int, seconds: dict[str, float]) -> Recent:
        self._samples.append((now, videos, frames, seconds))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RECENT_S:
            self._samples.popleft()
        then, videos_then, frames_then, seconds_then = self._samples[0]
        return Recent(now - then, videos - videos_then, frames - frames_then, difference(seconds, seconds_then))

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write(RUNNING, "")
            with suppress(StoreError):
                self._summaries_file.flush()

    def _write(self, state: str, reason: str) -> None:
        snapshot = self.snapshot(state, reason)
        path = f"{LOG_FOLDER}/{self._name}.json"
        local = self._root.local_path(path)
        with suppress(DyntokError, OSError):
            if local is None:
                self._root.write_atomic(path, snapshot.to_bytes())
            else:
                _replace_file(local, snapshot.to_bytes())
        with suppress(OSError):
            if self._metrics_file is not None:
                _replace_file(self._metrics_file, render(snapshot, redact(self._root.url)).encode())

    def _log(self, summary: ShardSummary) -> None:
        with suppress(StoreError):
            self._summaries_file.append(summary.to_line())


def default_metrics_file(root: StoreRoot, job: ArrayJob | None) -> Path | None:
    """`logs/metrics.prom`, or `logs/metrics-job-00003.prom`; nowhere on an object store, where nothing scrapes it."""
    name = f"metrics-job-{job.index:05d}.prom" if job else "metrics.prom"
    return root.local_path(f"{LOG_FOLDER}/{name}")


def check_metrics_file(path: str) -> Path:
    """Where metrics are to go. Raises UsageError where they cannot."""
    file = Path(path)
    if file.suffix != ".prom" or "://" in path:
        raise UsageError(
            f"{path} is no file of metrics",
            hint="name a local file that ends in .prom, as the node exporter wants",
        )
    if not file.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for metrics", hint="make it, or leave --metrics-file out")
    return file.absolute()


def _replace_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with replaced(path) as aside:
        aside.write_bytes(data)
