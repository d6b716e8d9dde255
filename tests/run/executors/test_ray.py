"""Ray actors give the bytes of the local executor, whatever dies on the way. One Ray for all tests of this file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dyntok.run import ArrayJob, encode
from dyntok.run.executors.ray import crew
from dyntok.store import verify
from tests.support.poison import SlowActor
from tests.support.ray_runs import SETTINGS, Watcher, by_ray, events
from tests.support.runs import copied_clips, demo_config, result_digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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


def test_actors_give_the_bytes_of_the_local_executor(
    ray_here: None, corpus: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    """Two do; others of these tests have one or four."""
    out, watcher, actors = tmp_path / "out", Watcher(), 2
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
