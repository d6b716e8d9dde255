"""`encode`: from inputs to a complete store, or to a resumable one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from dyntok.config import EncodeConfig
from dyntok.errors import DamageError, StoreError
from dyntok.records import VideoRow
from dyntok.run.array import ArrayJob
from dyntok.run.executors import chosen
from dyntok.run.executors.context import RunContext
from dyntok.run.lock import store_lock
from dyntok.run.precision import resolve_precision
from dyntok.run.prepare import Asked, agree, check_unchanged
from dyntok.run.tell.monitor import RunMonitor, check_metrics_file
from dyntok.run.tell.observer import Observers, RunObserver, StageClock
from dyntok.run.tell.runlog import RunLog, new_run_name
from dyntok.run.watch.outcome import outcome
from dyntok.run.watch.reports import EncodeReport, Totals
from dyntok.run.watch.survey import Survey, committed, fitting
from dyntok.store import Manifest, StoreRoot, build_index, write_manifest
from dyntok.store.names import MARKER_FILE
from dyntok.store.signed import digest_file


def encode(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: EncodeConfig,
    *,
    extend: bool = False,
    retry_failed: bool = False,
    job: ArrayJob | None = None,
    metrics_file: str | None = None,
    observer: RunObserver | None = None,
) -> EncodeReport:
    """Encode videos into the store at `out`; on a store that is there already, go on where it stopped.

    Args:
        inputs: files, folders, globs, manifests or tars, local or fsspec URLs. Empty: resume the frozen plan.
        out: folder or fsspec URL of the store.
        config: what to make and how to run.
        extend: take inputs that the plan does not know into new shards.
        retry_failed: try failed videos again, in new shards.
        job: encode this job's share of the shards only, beside other jobs; `finalize` completes the store. Inputs are
            read where no plan is frozen yet; else those of the job's own unfinished shards are held against the plan.
        metrics_file: where metrics for Prometheus go in place of the store's `logs/`; a local path.
        observer: is told of the progress.

    A video that fails does not fail the run; it is counted in the report.

    Raises:
        InputError: the inputs cannot be listed, or ids clash.
        StoreMismatchError: the store was made with other settings or inputs.
        StoreLockedError: another process writes to it.
        CheckpointError: the model cannot be loaded.
        RunError: the device failed or is full; an executor could not go on; a video failed, with `fail_fast`.
        StoreError: writing failed; what was committed stays, and the same call resumes.
    """
    sources = [os.fspath(item) for item in inputs]
    asked = Asked(sources, resolve_precision(config), extend=extend, retry_failed=retry_failed, job=job)
    metrics = check_metrics_file(metrics_file) if metrics_file else None
    started = time.perf_counter()
    clock = StageClock()
    root = StoreRoot.open(out, create=True, scratch=job.name if job else "")
    name = new_run_name(job)
    with (
        store_lock(root, job),
        RunMonitor(root, clock, name=name, job=job, metrics_file=metrics) as monitor,
    ):
        told = Observers(monitor, observer or RunObserver())
        with clock.measure("plan"):
            spec, info, plan = agree(root, asked, told)
            share = plan.shard_numbers if job is None else job.shards(plan.shard_numbers)
            kept = committed(root, plan, share)
            pending = sorted(set(share) - {summary.shard for summary in kept})
            if job and sources:
                check_unchanged(root, plan, pending)
        own = set(share) if job else None
        before = outcome(plan, kept, own)
        told.planned(before.videos, before.done + before.failed, len(share), len(kept))
        if pending:
            monitor.remember(kept)
            log = RunLog(root, name)
            told = Observers(_Logging(log, clock), told)
            _encode_pending(RunContext(root, asked.config, spec, info, plan, told, clock, log), pending)
        elif spec.has_row_marker and not _marker_is_sound(root):
            _write_row_marker(root, asked.config, clock)
        if job is None:
            with clock.measure("finish"):
                build_index(root, plan.entries())
                write_manifest(root)
        now = Survey(root, [*kept, *monitor.summaries]).summaries()
        after = outcome(plan, fitting(now, plan), own)
    return EncodeReport(
        **after.of(Totals),
        out=root.url,
        already=before.done + before.failed,
        shards=len(share),
        seconds=time.perf_counter() - started,
        stage_seconds=clock.seconds(),
        job_index=job.index if job else None,
        num_jobs=job.count if job else None,
    )


def _encode_pending(context: RunContext, pending: Sequence[int]) -> None:
    config, clock, log = context.config, context.clock, context.log
    executor = chosen(config)
    log.write(
        "start",
        config=config.model_dump(mode="json"),
        software=context.info.software,
        pending=len(pending),
        executor=executor,
    )
    try:
        if executor == "ray":
            from dyntok.run.executors.ray.run import run

            run(context, pending)
        else:
            from dyntok.run.executors import local

            local.run(context, pending)
        log.write("end", stage_seconds=clock.seconds())
    except BaseException as error:
        # The disk may be full, which must not hide why the run stopped.
        with suppress(StoreError):
            log.write("stopped", reason=f"{type(error).__name__}: {error}", stage_seconds=clock.seconds())
            log.close()
        raise
    log.close()


def _write_row_marker(root: StoreRoot, config: EncodeConfig, clock: StageClock) -> None:
    """Take it from the model where no shard needs one."""
    from dyntok.run.shard.model import load_model, save_row_marker

    with clock.measure("load"):
        save_row_marker(root, load_model(config.model_copy(update={"device": "cpu", "compile": False})))


def _marker_is_sound(root: StoreRoot) -> bool:
    """Whether the row marker is there, and the one that the manifest, if any, says it is."""
    if not root.exists(MARKER_FILE):
        return False
    try:
        manifest = Manifest.load(root)
    except DamageError:
        return False
    written = [file for file in manifest.files if file.path == MARKER_FILE] if manifest else []
    return not written or digest_file(root, MARKER_FILE) in written


class _Logging(RunObserver):
    """Keeps the log."""

    def __init__(self, log: RunLog, clock: StageClock) -> None:
        self._log, self._clock = log, clock

    def note(self, text: str) -> None:
        self._log.write("note", text=text)

    def video(self, row: VideoRow) -> None:
        if row.status == "failed":
            self._log.write("failed", id=row.id, error_class=row.error_class, error=row.error)

    def shard(self, shard: int, bytes_written: int) -> None:
        self._log.write("shard", shard=shard, bytes=bytes_written, stage_seconds=self._clock.seconds())
