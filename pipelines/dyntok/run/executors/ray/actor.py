"""The Ray actor: the shard function in a process of its own, with its own model and decode processes.

Frames never leave it. The driver calls `start` once, then `encode` for several shards at a time, so that their stages
overlap across shard ends; each call returns when its shard is committed. Ray runs the methods in threads.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from dyntok.errors import CheckpointError, DyntokError, RunError
from dyntok.records import PlanEntry, VideoRow
from dyntok.run.executors.deaths.marks import Marks, kernel_kills
from dyntok.run.executors.deaths.probing import blameless, encode_alone
from dyntok.run.executors.ray.exchange import ActorReport, ActorTask, ShardResult, Started
from dyntok.run.executors.ray.remains import (
    FOLDER_PREFIX,
    MARKS_FILE,
    OUTPUT_FILE,
    CapturedOutput,
    remove_stale_folders,
)
from dyntok.run.settings import decode_settings, differences, software_versions
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.shard.model import load_model, save_row_marker
from dyntok.run.tell.observer import Observers, RunObserver, StageClock
from dyntok.run.tell.summaries import ShardSummary
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.video import DecodePool
from dyntok.vision import VisualEncoder


class EncodeActor:
    """See the module. `ray.remote(EncodeActor)` makes it an actor."""

    def __init__(self, task: ActorTask) -> None:
        remove_stale_folders()
        self._task = task
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        # Whoever reads what this process leaves behind removes all of it.
        tempfile.tempdir = str(self._folder)
        self._output = CapturedOutput(self._folder / OUTPUT_FILE)
        self._clock = StageClock()
        self._reporter = _Reporter()
        self._marks = Marks(self._folder / MARKS_FILE)
        self._undo = ExitStack()
        self._undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._undo.callback(self._marks.close)
        self._lock = threading.Lock()
        self._inbox: Inbox | None = None
        self._thread: threading.Thread | None = None
        self._reported: dict[str, float] = {}

    def start(self) -> Started | DyntokError:
        """Load the model and start the decode processes; the error if this node cannot do it."""
        import ray

        task = self._task
        try:
            torch.set_num_threads(task.torch_threads)
            root = StoreRoot.open(task.url, scratch=task.scratch)
            check_store(root, task.info)
            check_software(task.software)
            settings = decode_settings(task.config, task.spec)
            pool = self._undo.enter_context(DecodePool(settings, workers=task.config.decode_workers))
            with self._clock.measure("load"):
                encoder = self.load()
            if encoder.spec.fingerprint != task.spec.fingerprint:
                raise CheckpointError(
                    f"{platform.node()} has other weights of {task.config.model} than the driver",
                    hint="give every node the same checkpoint; with a hub model, name a --revision",
                )
            save_row_marker(root, encoder)
            told = Observers(self._marks, self._reporter)
            self._job = ShardJob(root, task.info, task.config, encoder, pool, told, self._clock)
        except Exception as error:  # noqa: BLE001 - the driver raises it
            failure = blameless(error)
            self._undo.close()
            return failure
        return Started(
            node=platform.node(),
            node_id=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            folder=str(self._folder),
            device=device_name(encoder.device),
            kernel_kills=kernel_kills(),
        )

    def load(self) -> VisualEncoder:
        """The model of the run."""
        return load_model(self._task.config)

    def encode(self, work: ShardWork) -> ShardResult:
        """Encode and commit a shard; several calls at a time share one pipeline."""
        begun_at = self._output.position()
        future: Future[ShardResult] = Future()
        with self._lock:
            if self._inbox is None:
                inbox = Inbox()
                thread = threading.Thread(target=self._run, args=(inbox,), name="dyntok-shards", daemon=True)
                thread.start()
                self._inbox, self._thread = inbox, thread
            self._reporter.await_shard(work.shard, future)
            if not self._inbox.put(work):
                self._reporter.settle(ShardResult(work.shard))
        result = future.result()
        return replace(result, output=self._output.since(begun_at))

    def probe(self, entry: PlanEntry) -> ShardResult:
        """Encode one video with nothing else in this process, and commit it to nowhere."""
        self._close_inbox()
        begun_at = self._output.position()
        failure = None
        try:
            encode_alone(self._job, entry)
        except Exception as error:  # noqa: BLE001 - the driver is told
            failure = blameless(error)
        return ShardResult(entry.shard, error=failure, output=self._output.since(begun_at))

    def progress(self, wait_s: float) -> ActorReport:
        """What happened since the last call; waits up to `wait_s` for something to report."""
        until = time.monotonic() + wait_s
        while (report := self._reporter.take()).is_empty and time.monotonic() < until:
            time.sleep(min(0.1, wait_s))
        seconds = self._clock.seconds()
        report.stages = {stage: total - self._reported.get(stage, 0.0) for stage, total in seconds.items()}
        self._reported = seconds
        return report

    def drain(self) -> None:
        """Hand back the shards that are not begun; those that are will be committed."""
        with self._lock:
            if self._inbox is not None:
                for work in self._inbox.close():
                    self._reporter.settle(ShardResult(work.shard))

    def stop(self) -> None:
        """End in order, when no shard is in work: nothing is left on the node."""
        self._close_inbox()
        self._undo.close()

    def _close_inbox(self) -> None:
        self.drain()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._inbox = self._thread = None

    def _run(self, inbox: Inbox) -> None:
        """The pipeline's thread."""
        try:
            encode_shards(self._job, inbox)
        except BaseException as error:  # noqa: BLE001 - the driver is told, and replaces this actor
            self._reporter.break_off(blameless(error))


class Inbox(Iterator[ShardWork | None]):
    """Shards for the shard function: None while there are none, until it is closed."""

    def __init__(self) -> None:
        self._works: deque[ShardWork] = deque()
        self._closed = False
        self._lock = threading.Lock()

    def put(self, work: ShardWork) -> bool:
        """Whether it was taken: not once the inbox is closed."""
        with self._lock:
            if not self._closed:
                self._works.append(work)
            return not self._closed

    def close(self) -> list[ShardWork]:
        """Take no more shards; gives those that were not begun."""
        with self._lock:
            self._closed = True
            left = list(self._works)
            self._works.clear()
            return left

    def __next__(self) -> ShardWork | None:
        with self._lock:
            if self._closed:
                raise StopIteration
            return self._works.popleft() if self._works else None


class _Reporter(RunObserver):
    """Adds up what the driver will ask for, and settles the calls whose shards are committed."""

    def __init__(self) -> None:
        self._report = ActorReport()
        self._queued = 0
        self._futures: dict[int, Future[ShardResult]] = {}
        self._shards: dict[str, int] = {}
        self._broken: DyntokError | None = None
        self._lock = threading.Lock()

    def await_shard(self, shard: int, future: Future[ShardResult]) -> None:
        with self._lock:
            self._futures[shard] = future
        if self._broken is not None:
            self.break_off(self._broken)

    def settle(self, result: ShardResult) -> None:
        with self._lock:
            future = self._futures.pop(result.shard, None)
        if future is not None:
            future.set_result(result)

    def break_off(self, error: DyntokError) -> None:
        """No shard will be committed any more."""
        self._broken = error
        with self._lock:
            shards = list(self._futures)
        for shard in shards:
            self.settle(ShardResult(shard, error=error))

    def take(self) -> ActorReport:
        with self._lock:
            taken, self._report = self._report, ActorReport()
        taken.queued = self._queued
        return taken

    def encoded(self, entry: PlanEntry) -> None:
        with self._lock:
            self._shards[entry.id] = entry.shard

    def queued(self, batches: int) -> None:
        self._queued = batches

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        with self._lock:
            self._report.frames += frames
            self._report.patches += patches
            self._report.tokens += tokens

    def video(self, row: VideoRow) -> None:
        with self._lock:
            self._report.rows.append((self._shards.pop(row.id), row))

    def committed(self, summary: ShardSummary) -> None:
        # The driver forgets the shard when it hears of its end, so nothing of it may come later.
        self.settle(ShardResult(summary.shard, summary, report=self.take()))


def check_store(root: StoreRoot, info: DatasetInfo) -> None:
    """Raise RunError unless `root` is, seen from this node, the store of the run."""
    if DatasetInfo.load(root).config_hash != info.config_hash:
        raise RunError(
            f"{platform.node()} sees another store at {root.url} than the driver",
            hint="--out must be one shared folder or an object store, under the same path on every node",
        )


def check_software(expected: dict[str, str]) -> None:
    """Raise RunError if packages that decide the bytes have other versions here than in the driver."""
    here = {name: version for name, version in software_versions().items() if name in expected}
    changed = differences(expected, here)
    if changed:
        raise RunError(
            f"{platform.node()} has other packages than the driver, which may change the result: {'; '.join(changed)}",
            hint="use the same environment or image on every node",
        )


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
