"""What a run writes down while it goes on: snapshots, summaries, metrics, events."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dyntok.errors import VIDEO_ERROR_CODES, RunError, StoreError, UsageError
from dyntok.records import VideoRow
from dyntok.run import ArrayJob, RunObserver, encode, failed_videos, run_events, status
from dyntok.run.tell.metrics import STAGES, render
from dyntok.run.tell.monitor import RunMonitor, check_metrics_file
from dyntok.run.tell.observer import StageClock
from dyntok.run.tell.rates import bottleneck, busy_shares
from dyntok.run.tell.snapshot import ENDED, STOPPED, RunSnapshot
from dyntok.run.tell.summaries import ShardSummary
from dyntok.store import StoreRoot
from tests.support.runs import demo_config
from tests.support.samples import iter_records

Families = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(3):
        shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{number}.mp4")
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def encoded(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoded") / "store"
    encode([str(corpus)], str(out), demo_config(shard_size="150KB", decode_workers=1))
    return out


def parsed(text: str) -> Families:
    """Samples by metric and labels, each declared once before its samples; the plainest reading of the format."""
    families: Families = {}
    declared: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            _, what, name, _ = line.split(" ", 3)
            assert what not in declared.setdefault(name, set()), line
            declared[name].add(what)
            continue
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("} ")
        assert declared[name] == {"HELP", "TYPE"}
        pairs = tuple(tuple(pair.split("=", 1)) for pair in labels.removesuffix('"').split('",'))
        families.setdefault(name, {})[tuple((k, v.strip('"')) for k, v in pairs)] = float(value)
    assert text.endswith("\n")
    return families


def total(families: Families, name: str, **labels: str) -> float:
    return sum(value for key, value in families[name].items() if labels.items() <= dict(key).items())


def test_the_metrics_of_a_run_are_its_figures(encoded: Path) -> None:
    families = parsed((encoded / "logs" / "metrics.prom").read_text())
    report = status(str(encoded))
    assert total(families, "dyntok_videos_total", status="done") == report.done == 3
    assert total(families, "dyntok_videos_total", status="failed") == report.failed == 1
    assert total(families, "dyntok_video_failures_total", **{"class": "not_a_video"}) == 1
    assert total(families, "dyntok_video_failures_total") == 1
    assert total(families, "dyntok_frames_total") == report.frames == 12
    assert total(families, "dyntok_patches_total") == report.patches
    assert total(families, "dyntok_tokens_total") == report.tokens["0.60"]
    assert total(families, "dyntok_bytes_total") == report.bytes
    assert total(families, "dyntok_shards_total") == report.shards
    assert total(families, "dyntok_videos_pending") == total(families, "dyntok_shards_pending") == 0
    assert total(families, "dyntok_run_active") == 0
    assert total(families, "dyntok_eta_seconds") == 0
    assert {dict(key)["class"] for key in families["dyntok_video_failures_total"]} == set(VIDEO_ERROR_CODES)
    assert all(dict(key)["store"] == str(encoded) for values in families.values() for key in values)
    shares = {dict(key)["stage"]: value for key, value in families["dyntok_stage_busy_ratio"].items()}
    assert shares.keys() == {"decode", "device", "write"}
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) > 0


def test_prometheus_itself_reads_the_metrics(encoded: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = (encoded / "logs" / "metrics.prom").read_text()
    read = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    mine = {(name, key): value for name, values in parsed(text).items() for key, value in values.items()}
    assert read == mine


def test_metrics_have_the_same_names_and_labels_before_anything_happened(encoded: Path) -> None:
    empty = RunSnapshot("run", "running", "h", 1, None, None, 0.0, 0.0, 5.0)
    first = parsed(render(empty, "s"))
    last = parsed((encoded / "logs" / "metrics.prom").read_text())
    assert list(first) == list(last)
    for name in first:
        assert [key[1:] for key in first[name]] == [key[1:] for key in last[name]]
    assert math.isnan(total(first, "dyntok_eta_seconds"))
    job = RunSnapshot("run", "running", "h", 1, 3, 16, 0.0, 0.0, 5.0)
    assert total(parsed(render(job, "s")), "dyntok_devices", job="3") == 0
    assert 'store="a\\"b\\\\c\\nd"' in render(empty, 'a"b\\c\nd')


def test_every_stage_that_runs_clock_is_a_metric(encoded: Path) -> None:
    stages = RunSnapshot.from_bytes(next(encoded.glob("logs/run-*Z-*.json")).read_bytes())
    assert stages is not None
    assert set(stages.stage_seconds) <= set(STAGES)
    assert {"wait", "blocked", "model", "write", "commit", "decode"} <= set(stages.stage_seconds)


def test_a_run_leaves_a_snapshot_and_a_summary_of_each_record(encoded: Path) -> None:
    states = list(encoded.glob("logs/run-*.json"))
    assert len(states) == 1
    run = RunSnapshot.from_bytes(states[0].read_bytes())
    assert run is not None
    assert (run.state, run.videos, run.done, run.failed, run.pending) == (ENDED, 4, 3, 1, 0)
    assert (run.shards, run.shards_done, run.decode_processes, run.devices) == (4, 4, 1, 1)
    lines = next(encoded.glob("logs/*.shards.jsonl")).read_bytes().splitlines(keepends=True)
    summaries = [ShardSummary.from_line(line) for line in lines]
    records = list(iter_records(StoreRoot.open(str(encoded))))
    assert sorted((s.shard, s.plan_digest) for s in summaries if s) == [(r.shard, r.plan_digest) for r in records]


def test_a_second_run_with_nothing_to_do_writes_nothing(encoded: Path, corpus: Path) -> None:
    before = sorted(path.name for path in (encoded / "logs").iterdir())
    encode([str(corpus)], str(encoded), demo_config(shard_size="150KB", decode_workers=1))
    assert sorted(path.name for path in (encoded / "logs").iterdir()) == before


def test_a_run_logs_summaries_that_an_earlier_one_did_not(encoded: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(encoded, out)
    shutil.rmtree(out / "logs")
    for name in ("manifest.json", "shards/shard-000001.json"):
        (out / name).unlink()
    encode([], str(out), demo_config(shard_size="150KB", decode_workers=1))
    lines = next(out.glob("logs/*.shards.jsonl")).read_bytes().splitlines(keepends=True)
    assert sorted(s.shard for line in lines if (s := ShardSummary.from_line(line))) == [0, 1, 2, 3]


def test_what_stopped_a_run_is_written_down(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RunError):
        encode([str(corpus)], str(out), demo_config(fail_fast=True))
    run = RunSnapshot.from_bytes(next(out.glob("logs/run-*Z-*.json")).read_bytes())
    assert run is not None
    assert run.state == STOPPED
    assert "not_a_video" in run.reason
    assert total(parsed((out / "logs" / "metrics.prom").read_text()), "dyntok_run_active") == 0


def test_what_stopped_a_run_is_written_down_without_secrets(corpus: Path, tmp_path: Path) -> None:
    """Any error's text may hold the address that a driver was given."""

    class Failing(RunObserver):
        def video(self, row: VideoRow) -> None:
            raise ValueError("GET https://me:hushhush@host/a.mp4?token=hushhush: 500")

    with pytest.raises(ValueError, match="hushhush"):
        encode([str(corpus)], str(tmp_path), demo_config(), observer=Failing())
    stopped = [event for event in run_events(str(tmp_path)) if event["event"] == "stopped"]
    assert [event["reason"] for event in stopped] == ["ValueError: GET https://host/a.mp4 500"]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hushhush" not in path.read_bytes(), path


def test_metrics_go_where_they_are_asked_to(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "collector" / "dyntok.prom"
    with pytest.raises(UsageError, match="no folder"):
        encode([str(corpus)], str(tmp_path / "out"), demo_config(), metrics_file=str(file))
    assert not (tmp_path / "out").exists()
    file.parent.mkdir()
    job = ArrayJob(0, 1)
    encode([str(corpus)], str(tmp_path / "out"), demo_config(), job=job, metrics_file=str(file))
    assert total(parsed(file.read_text()), "dyntok_frames_total", job="0") == 12
    assert [path.name for path in file.parent.iterdir()] == ["dyntok.prom"]
    assert not (tmp_path / "out" / "logs" / "metrics-job-00000.prom").exists()
    for wrong in ("s3://bucket/x.prom", str(tmp_path / "metrics.txt")):
        with pytest.raises(UsageError):
            check_metrics_file(wrong)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """Somebody who reads all the time, as a node exporter might, while figures are written all the time."""
    root = StoreRoot.open(str(tmp_path / "out"), create=True)
    clock = StageClock()
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            for path in (tmp_path / "out" / "logs").glob("[!.]*"):
                if path.suffix == ".prom":
                    parsed(path.read_text())
                elif path.suffix == ".json":
                    assert RunSnapshot.from_bytes(path.read_bytes()) is not None
                seen.append(1)

    (tmp_path / "out" / "logs").mkdir()
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            read()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    reader = threading.Thread(target=guarded)
    reader.start()
    with RunMonitor(root, clock, name="run-x", every_s=0.001) as monitor:
        monitor.planned(10_000, 0, 10, 0)
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < 1.0 or (len(seen) <= 10 and passed < 60.0):
            monitor.frames(4, 784, 300)
            monitor.video(VideoRow("a", "a", "a", 0, "done"))
            clock.add({"model": 0.001, "wait": 0.001})
    stop.set()
    reader.join()
    assert not failures
    assert len(seen) > 10


def test_nothing_that_cannot_be_written_stops_a_run(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from dyntok.run.tell import monitor

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monitor, "_replace_file", broken)
    monkeypatch.setattr(monitor.LineFile, "append", lambda *_: (_ for _ in ()).throw(StoreError("no space")))
    with monkeypatch.context() as patch:
        from dyntok.run.tell.runlog import RunLog

        patch.setattr(RunLog, "write", lambda *_, **__: None)
        assert encode([str(corpus)], str(tmp_path / "out"), demo_config()).done == 3


def test_the_pace_is_that_of_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dyntok.run.tell import monitor as module

    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    root = StoreRoot.open(str(tmp_path / "out"), create=True)
    clock = StageClock()
    watched = RunMonitor(root, clock, name="run-x")
    watched._share = (1000, 100, 10, 1)
    watched.snapshot()
    assert watched.snapshot().eta_seconds is None
    for _ in range(100):  # one video a second
        now[0] += 1
        watched.video(VideoRow("a", "a", "a", 0, "done"))
        watched.frames(8, 8, 8)
        watched.snapshot()
    assert watched.snapshot().videos_per_second == pytest.approx(1.0)
    for _ in range(600):  # one in ten seconds
        now[0] += 1
        if now[0] % 10 == 0:
            watched.video(VideoRow("a", "a", "a", 0, "done"))
            watched.frames(8, 8, 8)
        watched.snapshot()
    last = watched.snapshot()
    assert last.videos_per_second == pytest.approx(0.1, rel=0.1)
    assert last.frames_per_second == pytest.approx(0.8, rel=0.1)
    assert last.pending == 1000 - 100 - 160
    assert last.eta_seconds == pytest.approx(7400, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, None),
        ({"wait": 5.0}, None),
        ({"wait": 90.0, "model": 9.0, "write": 5.0, "blocked": 1.0}, "decode"),
        ({"wait": 5.0, "model": 60.0, "merge": 20.0, "write": 30.0, "blocked": 2.0}, "device"),
        ({"wait": 5.0, "model": 30.0, "blocked": 65.0, "write": 90.0}, "write"),
        ({"wait": 60.0, "model": 40.0, "merge": 50.0, "collect": 40.0}, "write"),
        # Nothing is handed to the writer while it commits, so that decoding stands still: the device only sees a wait.
        ({"wait": 80.0, "model": 20.0, "write": 5.0, "commit": 93.0}, "write"),
    ],
)
def test_the_bottleneck_is_what_the_others_wait_for(seconds: dict[str, float], expected: str | None) -> None:
    assert bottleneck(seconds) == expected
    assert all(0 <= share <= 1 for share in busy_shares(seconds).values())


# events -------------------------------------------------------------------------------------------------------


def test_events_tell_what_happened(encoded: Path) -> None:
    events = list(run_events(str(encoded)))
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    names = [event["event"] for event in events]
    assert (names[0], names[-1], names.count("shard"), names.count("failed")) == ("start", "end", 4, 1)
    shard = failed_videos(str(encoded))[0].shard
    of_shard = list(run_events(str(encoded), shard=shard))
    assert {event["event"] for event in of_shard} == {"failed", "shard"}
    with pytest.raises(UsageError, match="no shard 99"):
        run_events(str(encoded), shard=99)


def test_torn_lines_are_left_out(encoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(encoded, out)
    log = next(path for path in out.glob("logs/*.jsonl") if ".shards." not in path.name)
    events = len(list(run_events(str(out))))
    log.write_bytes(log.read_bytes() + b'{"time": "2026", "event": "sh')
    assert len(list(run_events(str(out)))) == events


def test_failed_videos_come_with_class_attempts_and_message(corpus: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    encode([str(corpus)], out, demo_config(shard_size="150KB"))
    encode([], out, demo_config(shard_size="150KB"), retry_failed=True)
    (failed,) = failed_videos(out)
    assert (failed.id, failed.error_class, failed.attempts) == ("broken.mp4", "not_a_video", 2)
    assert failed.error
    assert [video.attempts for video in failed_videos(out, shard=failed.shard)] == [2]
    first = {event["id"]: event for event in run_events(out) if event["event"] == "failed"}
    assert first["broken.mp4"]["error_class"] == "not_a_video"


@pytest.fixture
def memory_url() -> Iterator[str]:
    yield "memory://bucket/monitor"
    fsspec.filesystem("memory").store.clear()


@pytest.mark.slow
def test_runs_on_an_object_store_are_told_by_their_logs(corpus: Path, memory_url: str) -> None:
    seen: list[bool] = []

    class Looking(RunObserver):
        def video(self, row: VideoRow) -> None:
            seen.append(status(memory_url).running)

    encode([str(corpus)], memory_url, demo_config(shard_size="150KB"), observer=Looking())
    assert all(seen)
    assert not status(memory_url).running
    events = [event["event"] for event in run_events(memory_url)]
    assert events.count("shard") == 4
    names = [path for path in StoreRoot.open(memory_url).list("logs") if path.endswith(".jsonl")]
    assert sorted(name.split(".", 1)[1] for name in names) == ["0001.jsonl", "shards.0001.jsonl"]
    assert json.loads(StoreRoot.open(memory_url).read_bytes(names[0]).splitlines()[0])
