"""Ray actors give the bytes of the local executor, whatever dies on the way. One Ray for all tests of this file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dyntok.errors import RunError
from dyntok.records import VideoRow
from dyntok.run import ArrayJob, RunObserver, encode, status
from dyntok.run.executors.ray import crew
from dyntok.run.executors.ray.actor import EncodeActor
from dyntok.store import CompletionRecord, StoreRoot, verify
from tests.support.poison import (
    MOST_KILLS,
    FullActor,
    KilledActor,
    PoisonedActor,
    RaisingActor,
    SlowActor,
    magenta_clip,
)
from tests.support.runs import copied_clips, demo_config, environment, result_digests

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
    return copied_clips(clip_folder, tmp_path_factory.mktemp("corpus"), 2)


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
    return [event for event in map(json.loads, lines) if event.get("event") == kind]


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
    # Those that are ready do the work; the last may be ready when it is done.
    assert 1 <= len(events(out, "actor")) <= actors
    assert by_ray(corpus, out, actors).already == 9


@pytest.mark.slow
def test_a_shard_may_come_from_any_actor(
    ray_here: None, corpus: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "ACTOR", SlowActor)
    out = tmp_path / "out"
    by_ray(corpus, out, 4, decode_workers=0)
    assert result_digests(out) == expected
    assert len(events(out, "actor")) > 1


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


@pytest.fixture
def poisoned(clip_folder: Path, tmp_path: Path) -> Path:
    """Three good clips and one that kills the model of `tests.support.poison`."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c", "d"):
        shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{name}.mp4")
    magenta_clip(folder / "b.mp4")
    return folder


def test_a_video_that_kills_its_process_is_given_up_and_its_mates_are_done(
    ray_here: None, poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "ACTOR", PoisonedActor)
    out = tmp_path / "out"
    report = by_ray(poisoned, out, 1, max_attempts=1, shard_size="1GB")
    assert (report.done, report.failed, report.shards) == (3, 1, 1)
    record = CompletionRecord.load_strict(StoreRoot.open(str(out)), 0)
    assert [row.status for row in record.videos] == ["done", "failed", "done", "done"]
    failed = record.videos[1]
    assert (failed.id, failed.error_class) == ("b.mp4", "worker_died")
    assert "killed its process" in failed.error
    assert len(events(out, "died")) == 2
    assert [event["id"] for event in events(out, "quarantined")] == ["b.mp4"]
    assert "met magenta" in (out / "logs" / "shards" / "shard-000000.log").read_text()
    assert status(str(out)).error_classes == {"worker_died": 1}
    assert verify(str(out)).ok


def test_a_job_leaves_nothing_of_a_killed_actor_behind(
    ray_here: None, poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed when one of its shard's four videos is written, and the next is in the model for seconds."""
    monkeypatch.setattr(crew, "ACTOR", SlowActor)
    out = tmp_path / "out"
    left: list[Path] = []

    def kill() -> None:
        left.extend((out / ".tmp").rglob("shard-*"))
        os.kill(events(out, "actor")[0]["pid"], signal.SIGKILL)

    config = demo_config(executor="ray", actors=1, **{**SETTINGS, "shard_size": "1GB"})
    report = encode([str(poisoned)], str(out), config, job=ArrayJob(0, 1), observer=Watcher(1, kill))
    assert (report.done, report.shards) == (4, 1)
    assert len(events(out, "died")) == 1
    assert [path.parent.name for path in left] == ["job-00000-of-00001"]
    assert not list((out / ".tmp").rglob("shard-*"))


@pytest.mark.slow
def test_the_same_poison_leaves_the_same_bytes_whoever_meets_it(
    ray_here: None, poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "tests.support.poisoned_cli", "encode", str(poisoned)]
    flags = [
        "--model",
        "demo",
        "--frames",
        "4",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--shard-size",
        "150KB",
    ]
    local = [*command, "--out", str(tmp_path / "local"), *flags, "--max-attempts", "1"]
    assert subprocess.run(local, env=environment(), check=False).returncode == -signal.SIGKILL
    assert subprocess.run(local, env=environment(), check=False).returncode == 3
    expected = result_digests(tmp_path / "local")
    monkeypatch.setattr(crew, "ACTOR", PoisonedActor)
    for actors in (1, 2):
        out = tmp_path / str(actors)
        assert by_ray(poisoned, out, actors, max_attempts=1).failed == 1
        assert result_digests(out) == expected
        assert len(events(out, "died")) == 2
    assert not list((tmp_path / "local" / "logs" / "marks").iterdir())


@pytest.mark.parametrize(
    ("actor", "said"), [(FullActor, "not enough memory"), (RaisingActor, "unexpected ValueError: .* magenta")]
)
def test_an_error_ends_the_run_and_blames_no_video(
    ray_here: None,
    poisoned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    actor: type[EncodeActor],
    said: str,
) -> None:
    monkeypatch.setattr(crew, "ACTOR", actor)
    out = tmp_path / "out"
    with pytest.raises(RunError, match=said) as caught:
        by_ray(poisoned, out, 1, max_attempts=2, shard_size="1GB")
    assert caught.value.hint
    assert len(events(out, "died")) == 2
    assert not (out / "logs" / "attempts").exists()
    assert "magenta" in (out / "logs" / "shards" / "shard-000000.log").read_text() or actor is FullActor
    monkeypatch.setattr(crew, "ACTOR", EncodeActor)
    report = by_ray(poisoned, out, 1, max_attempts=2, shard_size="1GB")
    assert (report.done, report.failed) == (4, 0)


def test_a_device_that_is_always_full_ends_the_run_before_every_shard_was_tried(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        magenta_clip(tmp_path / f"{number}.mp4")
    monkeypatch.setattr(crew, "ACTOR", FullActor)
    out = tmp_path / "out"
    with pytest.raises(RunError, match="not enough memory"):
        by_ray(tmp_path, out, 1, max_attempts=2, shard_size="1KB")
    assert status(str(out)).shards == 6
    assert len(events(out, "died")) == 2
    assert not list((out / ".tmp").glob("shard-*"))


def test_a_video_is_not_blamed_for_kills_from_outside(
    ray_here: None, poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it is killed three times, twice while nothing else is in the process; one attempt is all it has."""
    kills = tmp_path / "kills"
    kills.mkdir()
    monkeypatch.setattr(crew, "ACTOR", KilledActor)
    out = tmp_path / "out"
    report = by_ray(poisoned, out, 1, max_attempts=1, shard_size="1GB")
    assert (report.done, report.failed) == (4, 0)
    assert len(events(out, "died")) == len(list(kills.iterdir())) == MOST_KILLS
    assert not events(out, "quarantined")
    encode([str(poisoned)], str(tmp_path / "local"), demo_config(executor="local", shard_size="1GB"))
    assert result_digests(out) == result_digests(tmp_path / "local")


def test_fail_fast_stops_at_the_first_failure(ray_here: None, poisoned: Path, tmp_path: Path) -> None:
    (poisoned / "b.mp4").write_text("no video")
    with pytest.raises(RunError, match=r"b\.mp4: not_a_video"):
        by_ray(poisoned, tmp_path / "out", 1, fail_fast=True, shard_size="1GB")
    assert not list((tmp_path / "out").glob("shards/*"))
