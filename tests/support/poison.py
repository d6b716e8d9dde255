"""A model that some frames kill: what a fault in a GPU kernel or a driver does, without one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyntok.run.executors.ray.actor import EncodeActor
from tests.support.clips import write_video

MAGENTA = (255, 0, 255)
CHILD_ENCODER = "DYNTOK_TEST_ENCODER"


def magenta_clip(path: Path) -> Path:
    """A clip of plain magenta, which kills `PoisonedEncoder`."""
    image = np.full((64, 96, 3), MAGENTA, np.uint8)
    return write_video(path, images=[image] * 12)


def is_magenta(images: Tensor) -> bool:
    """Whether a frame of a batch is plain magenta."""
    means = images.float().mean(dim=(1, 2))
    return bool(((means[:, 0] > 200) & (means[:, 1] < 60) & (means[:, 2] > 200)).any())


class PoisonedEncoder:
    """Behaves as `inner` until it meets a frame of plain magenta; then its process is gone."""

    death = signal.SIGKILL

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, images: Tensor) -> Any:
        if is_magenta(images):
            os.write(2, b"the model met magenta\n")
            # In this thread: while another one handles the signal, this frame would pass.
            signal.raise_signal(self.death)
        return self._inner.encode(images)


class PoisonedActor(EncodeActor):
    """An actor with such a model."""

    def load(self) -> Any:
        return CrashingEncoder(super().load())


class CrashingEncoder(PoisonedEncoder):
    """Dies as of a crash: a kill would be taken for somebody's."""

    death = signal.SIGABRT


class RaisingEncoder(PoisonedEncoder):
    """Raises where the other one dies, as a fault in its code does."""

    error: Exception = ValueError("the model met magenta")

    def encode(self, images: Tensor) -> Any:
        if is_magenta(images):
            raise self.error
        return self._inner.encode(images)


class FullEncoder(RaisingEncoder):
    """Its device has no memory left for that frame."""

    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class FailingEncoder(RaisingEncoder):
    """Its device fails at that frame."""

    error = RuntimeError("CUDA error: device-side assert triggered")


class RaisingActor(EncodeActor):
    """An actor with such a model."""

    def load(self) -> Any:
        return RaisingEncoder(super().load())


class FullActor(EncodeActor):
    """An actor with such a model."""

    def load(self) -> Any:
        return FullEncoder(super().load())


MOST_KILLS = 3


class KilledEncoder(PoisonedEncoder):
    """Killed by that frame three times, each of which leaves a file in a folder, and then not any more."""

    def __init__(self, inner: Any, kills: Path) -> None:
        super().__init__(inner)
        self._kills = kills

    def encode(self, images: Tensor) -> Any:
        if is_magenta(images) and (number := len(list(self._kills.iterdir()))) < MOST_KILLS:
            (self._kills / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._inner.encode(images)


class KilledActor(EncodeActor):
    """An actor with such a model; the folder is `kills` beside the store."""

    def load(self) -> Any:
        return KilledEncoder(super().load(), Path(self._task.url).with_name("kills"))


class SlowActor(EncodeActor):
    """An actor whose model takes five seconds for a batch, so that others have time to start."""

    def load(self) -> Any:
        return SlowEncoder(super().load())


class SlowEncoder(PoisonedEncoder):
    """See `SlowActor`."""

    def encode(self, images: Tensor) -> Any:
        time.sleep(5)
        return self._inner.encode(images)


def poison_local(encoder: type[PoisonedEncoder] = PoisonedEncoder) -> None:
    """From now on, the local executor of this process loads such a model, and so does its child."""
    os.environ[CHILD_ENCODER] = encoder.__name__
    from dyntok.run.executors import local
    from dyntok.run.executors.deaths import probing
    from dyntok.run.shard import model

    load = model.load_model
    for module in (model, local):
        module.load_model = lambda config: encoder(load(config))  # type: ignore[attr-defined]
    probing.CHILD = __name__


def main(arguments: dict[str, Any]) -> None:
    """In place of the local executor's child, which dies as of a crash: a kill would be taken for somebody's."""
    from dyntok.run.executors.deaths import probing

    PoisonedEncoder.death = signal.SIGABRT
    poison_local(globals()[os.environ.get(CHILD_ENCODER, "PoisonedEncoder")])
    probing.main(arguments)
