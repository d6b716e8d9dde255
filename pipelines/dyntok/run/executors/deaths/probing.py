"""For the local executor: videos encoded alone, in a child process whose death is no harm.

The child loads the model and waits for one line of JSON a video; it answers each with a line. It is started before
this process loads the model itself, and runs nothing of the caller's `__main__`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from dyntok.errors import DyntokError, RunError
from dyntok.records import PlanEntry
from dyntok.run.executors.context import RunContext, absolute_config
from dyntok.run.executors.deaths.kills import KILLS_FORGIVEN, kernel_kills

CHILD = "dyntok.run.executors.deaths.probing"
_BOOT = (
    "import json,sys; from importlib import import_module; a=json.loads(sys.stdin.readline()); "
    "sys.path[:]=a['path']; import_module(a['child']).main(a)"
)
READY, SURVIVED = "ready", "survived"


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
        """Whether encoding the video killed the process. Raises RunError if it cannot be tried.

        A process that was killed, and not by a kernel out of memory, was killed by somebody: it is tried again, a few
        times.
        """
        for _ in range(KILLS_FORGIVEN + 1):
            if self._process is None:
                self._process = self._start()
            before = kernel_kills()
            answer = self._ask(json.dumps([entry.shard, entry.position]))
            if answer == SURVIVED:
                return False
            status = self._end()
            if answer:
                raise RunError(f"{entry.source} cannot be looked into: {json.loads(answer)}")
            if status != -signal.SIGKILL or kernel_kills() > before:
                return True
        return True

    def _start(self) -> subprocess.Popen[str]:
        for _ in range(KILLS_FORGIVEN + 1):
            process = self._spawn()
            if process.stdout is not None and process.stdout.readline().strip() == READY:
                return process
            process.kill()
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                break
        raise RunError("the process for videos under suspicion cannot be started; stderr says why")

    def _spawn(self) -> subprocess.Popen[str]:
        import torch

        arguments = {
            "path": sys.path,
            "child": CHILD,
            "out": self._context.root.address,
            "config": absolute_config(self._context.config).model_dump(mode="json"),
            "threads": torch.get_num_threads(),
            # A child that dies cannot clean up.
            "scratch": self._scratch.name,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if process.stdin is not None:
            # Not as an argument, which any user of the machine can read: the store's address may hold credentials.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(arguments) + "\n")
                process.stdin.flush()
        return process

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
    from dyntok.run.executors.deaths.probe import probe_video
    from dyntok.run.settings import decode_settings
    from dyntok.run.shard.job import shard_job
    from dyntok.run.shard.model import load_model
    from dyntok.run.tell.observer import RunObserver, StageClock
    from dyntok.run.watch.outcome import open_plan
    from dyntok.store import DatasetInfo, StoreRoot
    from dyntok.video import DecodePool

    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tempfile.tempdir = arguments["scratch"]
    torch.set_num_threads(arguments["threads"])
    root = StoreRoot.open(arguments["out"])
    config = EncodeConfig(**arguments["config"])
    plan, info = open_plan(root), DatasetInfo.load(root)
    encoder = load_model(config)
    with DecodePool(decode_settings(config, encoder.spec), workers=1) as pool:
        job = shard_job(root, info, config, encoder, pool, RunObserver(), StageClock())
        print(READY, file=answers, flush=True)
        for line in sys.stdin:
            shard, position = json.loads(line)
            try:
                probe_video(job, plan.shard(shard)[position])
            except DyntokError as error:
                print(json.dumps(error.message), file=answers, flush=True)
                continue
            print(SURVIVED, file=answers, flush=True)
