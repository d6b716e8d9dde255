"""Ray actors give the bytes of the local executor, whatever dies on the way. One Ray for all tests of this file."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dyntok.records import VideoRow
from dyntok.run import RunObserver, encode, status
from dyntok.store import CompletionRecord, StoreRoot, verify
from tests.support.poison import PoisonedActor, RaisingActor, magenta_clip
from tests.support.runs import demo_config, environment, result_digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS: dict[str, Any] = {"decode_workers": 1, "cpus_per_actor": 0.5, "shard_size": "150KB"}


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    # Ray gives its processes a low priority, which on a busy machine lets tests wait for minutes.
    os.environ.update(PYTHONPATH=environment()["PYTHONPATH"], RAY_worker_niceness="0")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight copies of real clips and a file that is none, in several shards."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(2):
        for clip in sorted(clip_folder.glob("*.mp4")):
            shutil.copy(clip, folder / f"{number}-{clip.name}")
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local executor makes of it."""
    out = tmp_path_factory.mktemp("local") / "store"
    config = demo_config(executor="local", decode_workers=2, shard_size=SETTINGS["shard_size"])
    assert encode([str(corpus)], str(out), config).failed == 1
    return result_digests(out)


def by_ray(corpus: Path, out: Path, actors: int, observer: RunObserver | None = None, **settings: Any) -> Any:
    config = demo_config(executor="ray", actors=actors, **{**SETTINGS, **settings})
    return encode([str(corpus)], str(out), config, observer=observer)


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    """What the logs of a store say of one kind, in order."""
    lines = [line for log in sorted(out.glob("logs/run-*.jsonl")) for line in log.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


class Watcher(RunObserver):
    """Counts, and calls `then` once so many videos are written."""

    def __init__(self, after: int = -1, then: Callable[[], None] = lambda: None) -> None:
        self.rows: list[VideoRow] = []
        self.shards: list[int] = []
        self.notes: list[str] = []
        self.frames_seen = 0
        self._after, self._then = after, then

    def frames(self, frames: int, patches: int, tokens: int) -> None:
        self.frames_seen += frames

    def video(self, row: VideoRow) -> None:
        self.rows.append(row)
        if len(self.rows) == self._after:
            self._then()

    def shard(self, shard: int, bytes_written: int) -> None:
        self.shards.append(shard)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    "actors", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_actors_give_the_bytes_of_the_local_executor(
    ray_here: None, corpus: Path, expected: dict[str, str], tmp_path: Path, actors: int
) -> None:
    out, watcher = tmp_path / "out", Watcher()
    report = by_ray(corpus, out, actors, watcher)
    assert result_digests(out) == expected
    assert verify(str(out)).ok
    assert (report.done, report.failed) == (8, 1)
    assert sorted(row.id for row in watcher.rows) == sorted(path.name for path in corpus.iterdir())
    assert sorted(watcher.shards) == list(range(report.shards))
    assert watcher.frames_seen == 32
    assert {"model", "decode", "write", "commit"} <= report.stage_seconds.keys()
    assert len(events(out, "actor")) == actors
    assert by_ray(corpus, out, actors).already == 9


def test_a_killed_actor_costs_nothing_but_time(
    ray_here: None, corpus: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    watcher = Watcher(1, lambda: os.kill(events(out, "actor")[0]["pid"], signal.SIGKILL))
    by_ray(corpus, out, 1, watcher)
    assert result_digests(out) == expected
    assert len(events(out, "died")) == 1
    assert events(out, "died")[0]["node_alive"]
    assert len({row.id for row in watcher.rows}) == len(watcher.rows) == 9
    assert verify(str(out)).ok
    assert not list((out / ".tmp").glob("shard-*"))


@pytest.mark.parametrize("actor", [PoisonedActor, RaisingActor])
def test_a_video_that_kills_its_process_is_given_up_and_its_mates_are_done(
    ray_here: None,
    clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    actor: type[PoisonedActor],
) -> None:
    from dyntok.run.executors import crew

    monkeypatch.setattr(crew, "ACTOR", actor)
    corpus, out = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    for name in ("a", "c", "d"):
        shutil.copy(clip_folder / "carphone_pristine.mp4", corpus / f"{name}.mp4")
    magenta_clip(corpus / "b.mp4")
    report = by_ray(corpus, out, 1, max_attempts=2, shard_size="1GB")
    assert (report.done, report.failed, report.shards) == (3, 1, 1)
    record = CompletionRecord.load_strict(StoreRoot.open(str(out)), 0)
    failed = record.videos[1]
    assert (failed.id, failed.status, failed.error_class) == ("b.mp4", "failed", "worker_died")
    assert "killed its process" in failed.error
    assert [row.status for row in record.videos] == ["done", "failed", "done", "done"]
    assert len(events(out, "died")) == 3
    assert [event["id"] for event in events(out, "quarantined")] == ["b.mp4"]
    assert verify(str(out)).ok
    said = (out / "logs" / "shards" / "shard-000000.log").read_text()
    assert ("met magenta" in said) == (actor is PoisonedActor)
    assert status(str(out)).error_classes == {"worker_died": 1}
