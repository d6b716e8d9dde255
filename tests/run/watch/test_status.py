"""`status` reads little, and says what the records say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dyntok.run import StatusReport, StoreWatch, finalize, status
from dyntok.run.array import ArrayJob
from dyntok.run.lock import store_lock
from dyntok.run.tell.runlog import LineFile, LogFile, new_run_name
from dyntok.run.tell.snapshot import RUNNING, Recent, RunSnapshot
from dyntok.run.tell.summaries import ShardSummary, latest_failures, summarise
from dyntok.run.watch import survey
from dyntok.run.watch.outcome import open_plan
from dyntok.run.watch.survey import Survey, record_stamps
from dyntok.store import StoreRoot
from dyntok.store.names import record_path
from dyntok.store.signed import sign
from tests.support.samples import complete_store, iter_records, make_info
from tests.support.synthetic import FAILS_AT, record_bytes, synthetic_store

SHARDS, VIDEOS = 12, 9


@pytest.fixture
def store(tmp_path: Path) -> StoreRoot:
    """Twelve shards of nine videos, eight of them written by three jobs."""
    return synthetic_store(tmp_path / "store", shards=SHARDS, videos=VIDEOS, written=8, job_logs=3)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shards whose whole record is read."""
    seen: list[int] = []
    real = survey.summarise

    def counted(data: bytes, shard: int, where: str, **flags: bool) -> ShardSummary:
        seen.append(shard)
        return real(data, shard, where, **flags)

    monkeypatch.setattr(survey, "summarise", counted)
    return seen


def from_records(root: StoreRoot) -> dict[str, object]:
    """The figures of a status by reading everything, one video after the other."""
    last: dict[str, tuple[str, str]] = {}
    totals = {"frames": 0, "patches": 0, "bytes": 0, "done": 0, "shards_done": 0, "shards_failed": 0}
    tokens: dict[str, int] = {}
    for record in iter_records(root):
        totals["shards_done"] += 1
        totals["bytes"] += sum(file.bytes for file in record.files)
        totals["shards_failed"] += any(row.status == "failed" for row in record.videos)
        for row in record.videos:
            last[row.id] = row.status, row.error_class
            totals["frames"] += row.frames
            totals["patches"] += row.patches
            totals["done"] += row.status == "done"
            for name, count in row.tokens.items():
                tokens[name] = tokens.get(name, 0) + count
    classes: dict[str, int] = {}
    for state, code in last.values():
        if state == "failed":
            classes[code] = classes.get(code, 0) + 1
    return {**totals, "tokens": tokens, "failed": sum(classes.values()), "error_classes": classes}


def agrees(report: StatusReport, root: StoreRoot) -> None:
    expected = from_records(root)
    assert {name: getattr(report, name) for name in expected} == expected
    assert report.done + report.failed + report.pending == report.videos
    assert report.shards_done + report.shards_pending == report.shards


def test_with_summaries_no_record_is_read_and_the_figures_are_those_of_the_records(
    store: StoreRoot, reads: list[int]
) -> None:
    report = status(store.url)
    agrees(report, store)
    assert (report.state, report.videos, report.pending) == ("incomplete", 108, 36)
    assert reads == []
    assert len(report.failures) == 8


def test_what_no_summary_fits_is_read(store: StoreRoot, reads: list[int], tmp_path: Path) -> None:
    logs = tmp_path / "store" / "logs"
    gone = sorted(logs.glob("*.shards.jsonl"))[0]  # that of shards 0, 3, 6
    gone.unlink()
    other = sorted(logs.glob("*.shards.jsonl"))[0]
    torn = other.read_bytes()[:-30]  # of shards 1, 4, 7, the last
    other.write_bytes(torn.replace(b'"frames":', b'"frames":1', 1))  # and one that lies, of shard 1
    agrees(status(store.url), store)
    assert sorted(reads) == [0, 1, 3, 6, 7]


def test_a_record_with_another_digest_is_not_taken_for_its_summary(
    store: StoreRoot, reads: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "store" / record_path(5)
    path.write_bytes(signed_anew(path.read_bytes().replace(b'"frames":32', b'"frames":31')))
    agrees(status(store.url), store)
    path.write_bytes(record_bytes(5, VIDEOS - 1))
    report = status(store.url)
    assert report.shards_done == 7, "a record of another plan does not count"
    assert reads == [5, 5]


def signed_anew(data: bytes) -> bytes:
    content = json.loads(data)
    del content["digest"]
    return sign(content)


def test_a_torn_record_is_no_record(store: StoreRoot, tmp_path: Path) -> None:
    path = tmp_path / "store" / record_path(2)
    path.write_bytes(path.read_bytes()[:-100])
    report = status(store.url)
    assert report.shards_done == 7
    agrees(report, store)


def test_watching_reads_only_what_is_new(store: StoreRoot, reads: list[int], tmp_path: Path) -> None:
    watch = StoreWatch(store.url)
    first = watch.status()
    for shard in (8, 9):
        (tmp_path / "store" / record_path(shard)).write_bytes(record_bytes(shard, VIDEOS))
    second = watch.status()
    assert reads == [8, 9]
    assert (first.shards_done, second.shards_done) == (8, 10)
    agrees(second, store)
    (tmp_path / "store" / record_path(8)).unlink()
    agrees(watch.status(), store)
    assert reads == [8, 9]


def test_a_complete_store_is_answered_from_its_index_while_that_fits(tmp_path: Path, reads: list[int]) -> None:
    root = synthetic_store(tmp_path / "store", shards=5, videos=VIDEOS, logs=False)
    report = finalize(root.url)
    assert report.state == "complete"
    agrees(report, root)
    reads.clear()
    listed = status(root.url, shards=True)
    assert reads == []
    assert [(s.state, s.done, s.failed, s.bytes) for s in listed.shard_list] == [("done", 8, 1, 512)] * 5
    (tmp_path / "store" / record_path(3)).unlink()
    report = status(root.url)
    assert (report.state, report.shards_done) == ("incomplete", 4)
    agrees(report, root)


def test_a_changed_index_is_not_believed(tmp_path: Path, reads: list[int]) -> None:
    root = synthetic_store(tmp_path / "store", shards=3, videos=VIDEOS, logs=False)
    finalize(root.url)
    index = tmp_path / "store" / "index.parquet"
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    reads.clear()
    agrees(status(root.url), root)
    assert sorted(reads) == [0, 1, 2]


@pytest.mark.parametrize("finished", [True, False])
def test_a_retried_video_counts_as_its_latest_attempt(tmp_path: Path, finished: bool) -> None:
    root, _ = complete_store(str(tmp_path / "store"), make_info())
    if not finished:
        (tmp_path / "store" / "manifest.json").unlink()
    report = status(root.url)
    assert (report.videos, report.done, report.failed, report.pending) == (5, 4, 1, 0)
    assert [row.id for row in report.failures] == ["bad.mp4"]
    assert report.state == ("complete" if finished else "encoded")


def test_the_list_of_shards(store: StoreRoot) -> None:
    listed = status(store.url, shards=True).shard_list
    assert [shard.shard for shard in listed] == list(range(SHARDS))
    assert [shard.state for shard in listed] == ["done"] * 8 + ["pending"] * 4
    assert {shard.videos for shard in listed} == {VIDEOS}
    assert [shard.failed for shard in listed] == [1] * 8 + [0] * 4
    assert status(store.url).shard_list == ()


def test_object_stores_are_asked_for_the_heads_of_records(store: StoreRoot, reads: list[int], tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "store"), url.removeprefix("memory:/"), recursive=True)
    root = StoreRoot.open(url)
    assert record_stamps(root).keys() == record_stamps(store).keys()
    report = status(url)
    agrees(report, root)
    assert reads == []
    assert not report.running
    fs.rm(url.removeprefix("memory:/"), recursive=True)


def test_summaries_are_lines_that_come_back(store: StoreRoot) -> None:
    data = record_bytes(3, VIDEOS)
    summary = summarise(data, 3, "here")
    assert ShardSummary.from_line(summary.to_line()) == summary
    assert summary.record_bytes == len(data)
    assert [row.position for row in summary.failed] == [FAILS_AT]
    line = summary.to_line()
    for broken in (line[:-5], line.replace(b'"done":8', b'"done":9'), b"", b"{}\n", b"[1]\n", b"\xff\n"):
        assert ShardSummary.from_line(broken) is None


def test_failures_are_those_of_the_latest_attempt_whatever_came_between(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path / "store"), make_info())
    summaries = Survey(root).summaries()
    assert {key: shard for key, (shard, _) in latest_failures(summaries).items()} == {"bad.mp4": 0}
    assert latest_failures(summaries[:2]).keys() == {"bad.mp4", "late.mp4"}


# who runs, and how fast ---------------------------------------------------------------------------------------


def snapshot(job: ArrayJob | None, *, updated: float, **values: object) -> RunSnapshot:
    base: dict[str, object] = {
        "run": new_run_name(job), "state": RUNNING, "host": "node7", "pid": 123,
        "job_index": job.index if job else None, "num_jobs": job.count if job else None,
        "started": updated - 100, "updated": updated, "every_s": 5.0,
    }  # fmt: skip
    return RunSnapshot(**{**base, **values})  # type: ignore[arg-type]


def write(root: StoreRoot, run: RunSnapshot) -> None:
    root.write_atomic(f"logs/{run.run}.json", run.to_bytes())


def test_the_pace_of_live_jobs_adds_up(store: StoreRoot) -> None:
    import time

    now = time.time()
    stages = {
        "wait": 30.0,
        "model": 60.0,
        "merge": 5.0,
        "collect": 3.0,
        "blocked": 2.0,
        "decode": 80.0,
        "write": 9.0,
    }
    for index, (videos, frames) in enumerate([(10, 320), (20, 640), (5, 160)]):
        recent = Recent(seconds=10.0, videos=videos, frames=frames, stage_seconds=stages)
        write(
            store,
            snapshot(ArrayJob(index, 3), updated=now, videos=36, done=6, failed=0, frames=6000, recent=recent,
                     stage_seconds=stages),
        )  # fmt: skip
    idle = status(store.url)
    assert not idle.running, "no lock is held, whatever the files say"
    assert (idle.videos_per_second, idle.eta_seconds, idle.idle_pending) == (0.0, None, 36)
    with store_lock(store, ArrayJob(0, 3)), store_lock(store, ArrayJob(1, 3)):
        report = status(store.url)
    assert report.running
    assert report.num_jobs == 3
    assert [job.running for job in report.jobs] == [True, True, False]
    assert (report.videos_per_second, report.frames_per_second) == (3.0, 96.0)
    assert report.eta_seconds == pytest.approx(30 / 1.0), "that of the slower job"
    # Shards 8, 9, 10, 11 are pending; 8 and 11 are of job 2, which does not run.
    assert [job.pending for job in report.jobs] == [9, 9, 18]
    assert report.idle_pending == 18
    assert report.bottleneck == "device"
    assert report.busy["device"] == pytest.approx(60 / 92)
    assert {stage.stage: stage.frames_per_second for stage in report.stages}["model"] == pytest.approx(100.0)


def test_a_silent_run_on_an_object_store_is_taken_to_be_dead(store: StoreRoot, tmp_path: Path) -> None:
    import time

    url = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").put(str(tmp_path / "store"), url.removeprefix("memory:/"), recursive=True)
    root = StoreRoot.open(url)
    write(root, snapshot(None, updated=time.time()))
    assert status(url).running
    write(root, snapshot(None, updated=time.time() - 3600, run=new_run_name()))
    assert not status(url).running


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"run": 5}', b"null"])
def test_files_that_are_no_snapshots_are_passed_over(store: StoreRoot, content: bytes) -> None:
    store.write_atomic(f"logs/{new_run_name()}.json", content)
    store.write_atomic("logs/notes.json", b"{}")
    agrees(status(store.url), store)


def test_names_of_logs_say_which_job_wrote_them() -> None:
    for job in (None, ArrayJob(3, 16)):
        name = new_run_name(job)
        for suffix, kind in ((".json", "state"), (".jsonl", "events"), (".0003.jsonl", "events"),
                             (".shards.jsonl", "shards"), (".shards.0001.jsonl", "shards")):  # fmt: skip
            parsed = LogFile.parse(f"logs/{name}{suffix}")
            assert parsed is not None
            assert (parsed.run, parsed.job, parsed.kind) == (name, job, kind)
    assert LogFile.parse("logs/metrics.prom") is None
    assert LogFile.parse("logs/run-20260101T000000000000Z-job-00009-of-00003-x-1.jsonl").job is None  # type: ignore[union-attr]


@pytest.fixture
def bucket() -> Iterator[StoreRoot]:
    url = f"memory://{uuid.uuid4().hex}"
    yield StoreRoot.open(url, create=True)
    fsspec.filesystem("memory").store.clear()


def test_lines_go_into_parts_on_an_object_store(bucket: StoreRoot) -> None:
    file = LineFile(bucket, "run-x")
    file.append(b"1\n")
    file.flush(every_s=60)
    assert bucket.list("logs") == ()
    file.flush()
    file.append(b"2\n")
    file.append(b"3\n")
    file.flush()
    file.flush()
    assert {path: bucket.read_bytes(path) for path in bucket.list("logs")} == {
        "logs/run-x.0001.jsonl": b"1\n",
        "logs/run-x.0002.jsonl": b"2\n3\n",
    }


def test_status_imports_no_torch(store: StoreRoot) -> None:
    code = (
        "import sys\nfrom dyntok_cli.main import run\n"
        f"assert run(['status', {store.url!r}, '--json', '--shards']) == 0\n"
        f"assert run(['logs', {store.url!r}]) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["shards"] == SHARDS
    assert not set(done.stderr.split()) & {"torch", "transformers", "av", "decord", "ray", "dyntok.vision"}


@pytest.mark.slow
def test_a_store_as_large_as_the_benchmark_says(tmp_path: Path) -> None:
    root = synthetic_store(tmp_path / "store", shards=10_000, videos=20, written=9_000, job_logs=64)
    report = status(root.url)
    assert (report.shards_done, report.done, report.failed) == (9_000, 171_000, 9_000)
    with open_plan(root) as plan:
        assert plan.videos == report.videos == 200_000
    shutil.rmtree(tmp_path / "store")
