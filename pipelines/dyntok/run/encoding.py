"""`encode`: from inputs to a complete store, or to a resumable one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from dyntok.config import EncodeConfig
from dyntok.corpus import Plan
from dyntok.errors import StoreError
from dyntok.records import VideoRow
from dyntok.run.executors import chosen
from dyntok.run.executors.context import RunContext
from dyntok.run.job import ShardJob
from dyntok.run.lock import store_lock
from dyntok.run.outcome import outcome, pending_shards
from dyntok.run.prepare import agree_on_dataset, agree_on_plan
from dyntok.run.progress import RunObserver, StageClock
from dyntok.run.reports import EncodeReport
from dyntok.run.runlog import RunLog
from dyntok.run.settings import decode_workers, resolve_precision
from dyntok.run.spool import SpoolBudget
from dyntok.store import DatasetInfo, StoreRoot, build_index, save_tensors, write_manifest
from dyntok.store.names import MARKER_FILE
from dyntok.video import DecodePool
from dyntok.vision import ModelSpec, VisualEncoder


def encode(
    inputs: Sequence[str],
    out: str,
    config: EncodeConfig,
    *,
    extend: bool = False,
    retry_failed: bool = False,
    observer: RunObserver | None = None,
) -> EncodeReport:
    """Encode videos into the store at `out`; on a store that is there already, go on where it stopped.

    Args:
        inputs: files, folders, globs, manifests or tars, local or fsspec URLs. Empty: resume the frozen plan.
        out: folder or fsspec URL of the store.
        config: what to make and how to run.
        extend: take inputs that the plan does not know into new shards.
        retry_failed: try failed videos again, in new shards.
        observer: is told of the progress.

    A video that fails does not fail the run; it is counted in the report.

    Raises:
        InputError: the inputs cannot be listed, or ids clash.
        StoreMismatchError: the store was made with other settings or inputs.
        StoreLockedError: another process writes to it.
        CheckpointError: the model cannot be loaded.
        StoreError: writing failed; what was committed stays, and the same call resumes.
    """
    observer = observer or RunObserver()
    started = time.perf_counter()
    clock = StageClock()
    root = StoreRoot.open(out, create=True)
    with store_lock(root):
        root.clear_scratch()
        config = resolve_precision(config)
        spec, info = agree_on_dataset(root, config)
        with clock.measure("plan"):
            plan = agree_on_plan(
                root, inputs, config, info, extend=extend, retry_failed=retry_failed, observer=observer
            )
        pending = pending_shards(root, plan)
        before = outcome(root, plan)
        observer.planned(plan.videos, before.done + before.failed, plan.shards, plan.shards - len(pending))
        if pending:
            _encode_pending(root, config, spec, info, plan, pending, observer, clock)
        with clock.measure("finish"):
            build_index(root, plan.entries())
            write_manifest(root)
        after = outcome(root, plan)
    return EncodeReport(
        out=out,
        videos=after.videos,
        done=after.done,
        failed=after.failed,
        already=before.done + before.failed,
        shards=plan.shards,
        frames=after.frames,
        patches=after.patches,
        tokens=after.tokens,
        bytes=after.bytes,
        seconds=time.perf_counter() - started,
        stage_seconds=clock.seconds(),
        failures=after.failures,
    )


def _encode_pending(
    root: StoreRoot,
    config: EncodeConfig,
    spec: ModelSpec,
    info: DatasetInfo,
    plan: Plan,
    pending: Sequence[int],
    observer: RunObserver,
    clock: StageClock,
) -> None:
    executor = chosen(config)
    log = RunLog(root)
    log.write(
        "start",
        config=config.model_dump(mode="json"),
        software=info.software,
        pending=len(pending),
        executor=executor,
    )
    watched = _LoggingObserver(observer, log, clock)
    context = RunContext(root, config, spec, info, plan, watched, clock, log)
    try:
        if executor == "ray":
            from dyntok.run.executors import ray

            ray.run(context, pending)
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


def shard_job(
    root: StoreRoot,
    info: DatasetInfo,
    config: EncodeConfig,
    encoder: VisualEncoder,
    pool: DecodePool,
    observer: RunObserver,
    clock: StageClock,
) -> ShardJob:
    """Everything the shard function needs."""
    return ShardJob(
        root=root,
        info=info,
        encoder=encoder,
        device_type=encoder.device.type,
        pool=pool,
        decode_workers=decode_workers(config),
        height=encoder.spec.height,
        width=encoder.spec.width,
        batch_size=config.batch_size,
        sample_meta={
            "model": encoder.spec.fingerprint,
            "space": config.space,
            "sampling": config.sampling_json(),
        },
        fail_fast=config.fail_fast,
        observer=observer,
        clock=clock,
        spool_budget=SpoolBudget(),
    )


def save_row_marker(root: StoreRoot, encoder: VisualEncoder) -> None:
    """Write the model's `image_newline` once; every process of a run would write the same bytes."""
    if encoder.row_marker is not None and not root.exists(MARKER_FILE):
        marker = encoder.row_marker.float().numpy()
        root.write_atomic(MARKER_FILE, save_tensors({"row_marker": ("F32", marker)}))


class _LoggingObserver(RunObserver):
    """Passes on to the caller's observer and keeps the log."""

    def __init__(self, inner: RunObserver, log: RunLog, clock: StageClock) -> None:
        self._inner, self._log, self._clock = inner, log, clock

    def model_loaded(self, name: str, device: str) -> None:
        self._inner.model_loaded(name, device)

    def note(self, text: str) -> None:
        self._log.write("note", text=text)
        self._inner.note(text)

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        self._inner.frames(frames, patches, tokens)

    def video(self, row: VideoRow) -> None:
        if row.status == "failed":
            self._log.write("failed", id=row.id, error_class=row.error_class, error=row.error)
        self._inner.video(row)

    def shard(self, shard: int, bytes_written: int) -> None:
        self._log.write("shard", shard=shard, bytes=bytes_written, stage_seconds=self._clock.seconds())
        self._inner.shard(shard, bytes_written)
