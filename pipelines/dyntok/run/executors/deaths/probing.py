"""Videos encoded alone, where the death of the process is no harm.

An actor does so itself. The local executor has a child process for it, which loads the model and waits for one line of
JSON a video; it answers each with a line. It is started before this process loads the model itself, and runs nothing
of the caller's `__main__`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import replace
from typing import Any

from dyntok.errors import DyntokError, RunError
from dyntok.records import PlanEntry
from dyntok.run.executors.context import RunContext, absolute_config
from dyntok.run.executors.deaths.marks import KILLS_FORGIVEN, kernel_kills
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.store import DatasetInfo, StoreRoot

CHILD = "dyntok.run.executors.deaths.probing"
_BOOT = (
    "import json,sys; from importlib import import_module; a=json.loads(sys.stdin.readline()); "
    "sys.path[:]=a['path']; import_module(a['child']).main(a)"
)
READY, SURVIVED = "ready", "survived"


def encode_alone(job: ShardJob, entry: PlanEntry) -> None:
    """Run the shard function on one video, into a store that is thrown away. Raises as `encode_shards` does."""
    with tempfile.TemporaryDirectory(prefix="dyntok-probe-") as folder:
        config = job.config.model_copy(update={"fail_fast": False})
        alone = replace(job, root=StoreRoot.open(folder), config=config, observer=RunObserver())
        encode_shards(alone, [ShardWork(entry.shard, (replace(entry, position=0),))])


def blameless(error: BaseException) -> DyntokError:
    """The error itself if it is dyntok's own; else it is printed, and what this gives says so."""
    if isinstance(error, DyntokError):
        return error
    traceback.print_exception(error)
    return RunError(
        f"unexpected {type(error).__name__}: {error}",
        hint="no video is blamed for it: stderr, or logs/shards/ of a run on Ray, has the traceback",
    )


class ProbeChild:
    """A context manager; the process starts with the first probe, and anew after each death."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._process: subprocess.Popen[str] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="dyntok-probe-")

    def __enter__(self) -> ProbeChild:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._scratch.cleanup()

    def died_of(self, entry: PlanEntry) -> bool:
        """Whether encoding the video killed the process. Raises RunError if it cannot be tried, or raises an error.

        A process that was killed, and not by a kernel out of memory, was killed by somebody: it is tried again, a few
        times.
        """
        for _ in range(KILLS_FORGIVEN + 1):
            if self._process is None:
                self._start()
            before = kernel_kills()
            answer = self._ask(json.dumps([entry.shard, entry.position]))
            if answer == SURVIVED:
                return False
            status = self._end()
            if answer:
                message, hint = json.loads(answer)
                raise RunError(f"{entry.source} cannot be looked into: {message}", hint=hint)
            if status != -signal.SIGKILL or kernel_kills() > before:
                return True
        return True

    def _start(self) -> None:
        import torch

        arguments = {
            "path": sys.path,
            "child": CHILD,
            "out": self._context.root.address,
            "job": self._context.root.scratch,
            "config": absolute_config(self._context.config).model_dump(mode="json"),
            "threads": torch.get_num_threads(),
            # A child that dies cannot clean up.
            "scratch": self._scratch.name,
        }
        for _ in range(KILLS_FORGIVEN + 1):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            # Not as an argument, which any user of the machine can read: the store's address may hold credentials.
            if self._ask(json.dumps(arguments)) == READY:
                return
            if self._end() != -signal.SIGKILL:
                break
        raise RunError("the process for videos under suspicion cannot be started; stderr says why")

    def _ask(self, question: str) -> str:
        """The answer; empty if the process died."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return ""
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline().strip()

    def _end(self) -> int | None:
        """Kill the process; how it ended, perhaps before."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.communicate()
        return process.returncode


def main(arguments: dict[str, Any]) -> None:
    """The child."""
    import torch

    from dyntok.config import EncodeConfig
    from dyntok.corpus import FrozenPlan
    from dyntok.run.settings import decode_settings
    from dyntok.run.shard.model import load_model
    from dyntok.store.names import PLAN_FILE
    from dyntok.video import DecodePool

    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tempfile.tempdir = arguments["scratch"]
    torch.set_num_threads(arguments["threads"])
    root = StoreRoot.open(arguments["out"], scratch=arguments["job"])
    config = EncodeConfig(**arguments["config"])
    plan, info = FrozenPlan.open(root.seekable(PLAN_FILE)), DatasetInfo.load(root)
    encoder = load_model(config)
    with DecodePool(decode_settings(config, encoder.spec), workers=1) as pool:
        job = ShardJob(root, info, config, encoder, pool, RunObserver(), StageClock())
        print(READY, file=answers, flush=True)
        for line in sys.stdin:
            shard, position = json.loads(line)
            answer = SURVIVED
            try:
                encode_alone(job, plan.shard(shard)[position])
            except Exception as error:  # noqa: BLE001 - the parent raises it
                told = blameless(error)
                answer = json.dumps([told.message, told.hint])
            print(answer, file=answers, flush=True)
