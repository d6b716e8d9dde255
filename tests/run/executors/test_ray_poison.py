"""Videos and devices that end the process of a Ray actor. One Ray for all tests of this file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dyntok.errors import RunError
from dyntok.run import encode, status
from dyntok.run.executors.ray import crew
from dyntok.run.executors.ray.actor import EncodeActor
from dyntok.store import CompletionRecord, StoreRoot, verify
from tests.support.poison import MOST_KILLS, FullActor, KilledActor, PoisonedActor, RaisingActor, magenta_clip
from tests.support.ray_runs import by_ray, events
from tests.support.runs import demo_config, environment, result_digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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
