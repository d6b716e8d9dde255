"""Job arrays: several processes write one store, and the bytes are those of one quiet run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import fsspec
import pytest

from dyntok.corpus import FrozenPlan
from dyntok.errors import StoreError, StoreLockedError, StoreMismatchError, UsageError
from dyntok.run import ArrayJob, encode, finalize, freeze, prepare, status
from dyntok.run.lock import store_lock, writers
from dyntok.run.precision import resolve_precision
from dyntok.run.prepare import Asked, agree
from dyntok.run.tell.observer import RunObserver
from dyntok.store import StoreRoot, verify
from tests.support.runs import command, demo_config, environment
from tests.support.warm import WarmPopen

FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "200KB", "--device", "cpu")
CONFIG = demo_config(shard_size="200KB", decode_workers=1)


@pytest.fixture(scope="module")
def corpus(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight copies of a small clip and one file that is none: five shards."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(8):
        shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{number}.mp4")
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def quiet(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one undisturbed run makes. Not to be changed."""
    out = tmp_path_factory.mktemp("quiet") / "store"
    report = encode([str(corpus)], str(out), CONFIG)
    assert (report.done, report.failed, report.shards) == (8, 1, 5)
    return out


@pytest.fixture
def memory_url() -> Iterator[str]:
    yield "memory://bucket/jobs"
    fsspec.filesystem("memory").store.clear()


def contents(url: str | Path) -> dict[str, str]:
    """sha256 of everything that is part of the result: all but logs, scratch and locks."""
    root = StoreRoot.open(str(url))
    return {
        path: hashlib.sha256(root.read_bytes(path)).hexdigest()
        for path in root.list()
        if not path.startswith((".tmp/", "logs/", ".lock"))
    }


def start(corpus: Path, out: Path, index: int, count: int) -> subprocess.Popen[bytes]:
    return WarmPopen(
        command(
            "encode",
            corpus,
            "--out",
            out,
            *FLAGS,
            "--decode-workers",
            1,
            "--num-jobs",
            count,
            "--job-index",
            index,
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )


@pytest.mark.slow
def test_jobs_that_start_at_one_moment_make_the_store_of_one_run(corpus: Path, quiet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = [start(corpus, out, index, 3) for index in range(3)]
    errors = [job.communicate(timeout=150)[1].decode() for job in jobs]
    # broken.mp4 comes after the digits in the order of listing, so it is in the last shard, number 4, of job 1.
    assert [job.returncode for job in jobs] == [0, 3, 0], errors
    assert not (out / "manifest.json").exists()
    assert status(str(out)).state == "encoded"
    report = finalize(str(out))
    assert (report.state, report.done, report.failed) == ("complete", 8, 1)
    assert contents(out) == contents(quiet)
    assert not [p for p in (out / ".tmp").rglob("*") if p.is_file()] if (out / ".tmp").exists() else True
    finalize(str(out))
    assert contents(out) == contents(quiet)
    assert verify(str(out)).ok


@pytest.mark.slow
def test_a_job_that_was_killed_resumes(corpus: Path, quiet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    freeze([str(corpus)], str(out), CONFIG)
    process = start(corpus, out, 0, 2)
    deadline = time.monotonic() + 120
    while not list(out.glob("shards/shard-??????.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    left = sorted(path.name for path in out.glob("shards/shard-??????.json"))
    assert left
    assert set(left) <= {"shard-000000.json", "shard-000002.json", "shard-000004.json"}
    with pytest.raises(StoreError, match=r"shards of .* are not written: "):
        finalize(str(out))
    resumed = encode([], str(out), CONFIG, job=ArrayJob(0, 2))
    assert resumed.already >= 2
    assert (resumed.videos, resumed.done, resumed.failed, resumed.shards) == (5, 4, 1, 3)
    other = encode([str(corpus)], str(out), CONFIG, job=ArrayJob(1, 2))
    assert (other.videos, other.done, other.failed, other.already) == (4, 4, 0, 0)
    finalize(str(out))
    assert contents(out) == contents(quiet)


def test_finalize_says_what_is_missing_and_whose_it_is(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode([str(corpus)], str(out), CONFIG, job=ArrayJob(1, 3))
    with pytest.raises(StoreError) as caught:
        finalize(str(out))
    assert "3 of 5 shards" in caught.value.message
    assert "0, 2, 3; they belong to jobs 0, 2 of 3" in caught.value.message
    assert "--num-jobs 3 --job-index 0" in (caught.value.hint or "")
    assert not (out / "manifest.json").exists()
    report = status(str(out))
    assert (report.state, report.shards_done, report.num_jobs) == ("incomplete", 2, 3)
    assert [(job.shards, job.shards_done, job.pending) for job in report.jobs] == [
        (2, 0, 4),
        (2, 2, 0),
        (1, 0, 2),
    ]


def test_finalize_does_not_trust_a_record_that_another_look_finds_broken(quiet: Path, tmp_path: Path) -> None:
    """A changed byte behind the head of a record is not seen by the quick look, and must not become an index."""
    out = tmp_path / "copy"
    shutil.copytree(quiet, out)
    (out / "manifest.json").unlink()
    record = out / "shards" / "shard-000003.json"
    data = bytearray(record.read_bytes())
    data[-20] ^= 1
    record.write_bytes(data)
    with pytest.raises(StoreError, match="not written: 3"):
        finalize(str(out))
    assert not (out / "manifest.json").exists()
    encode([], str(out), CONFIG)
    assert contents(out) == contents(quiet)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_shard_has_one_job(count: int) -> None:
    shares = [ArrayJob(index, count).shards(range(3, 40)) for index in range(count)]
    assert sorted(shard for share in shares for shard in share) == list(range(3, 40))


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, 10**6)])
def test_jobs_out_of_range_are_refused(index: int, count: int) -> None:
    with pytest.raises(UsageError):
        ArrayJob(index, count)


# who may write ------------------------------------------------------------------------------------------------


def test_one_writer_for_each_job_or_one_for_all(tmp_path: Path) -> None:
    root = StoreRoot.open(str(tmp_path / "out"), create=True)
    zero, one = ArrayJob(0, 4), ArrayJob(1, 4)
    with store_lock(root, zero), store_lock(root, one):
        assert writers(root).jobs == (zero, one)
        with pytest.raises(StoreLockedError, match="job 0 of 4 is writing"), store_lock(root, zero):
            pass
        with (
            pytest.raises(StoreLockedError, match=r"jobs 0, 1 of 4 are writing .* job 1 of 3"),
            store_lock(root, ArrayJob(1, 3)),
        ):
            pass
        with pytest.raises(StoreLockedError, match="jobs 0, 1 of 4 are writing"), store_lock(root):
            pass
    with store_lock(root):
        assert writers(root).whole
        with pytest.raises(StoreLockedError, match="another process"), store_lock(root, zero):
            pass
    assert not writers(root)
    with store_lock(root, ArrayJob(1, 3)):
        assert writers(root).jobs == (ArrayJob(1, 3),)


def test_looking_never_keeps_a_writer_out(tmp_path: Path) -> None:
    """`writers` takes locks for a moment; somebody who looks without pause must not make a start fail."""
    root = StoreRoot.open(str(tmp_path / "out"), create=True)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            writers(root)

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(30):
                with store_lock(root):
                    pass
                with store_lock(root, ArrayJob(0, 2)), store_lock(root, ArrayJob(1, 2)):
                    pass
        finally:
            stop.set()
        for future in looking:
            future.result()


def test_cleaning_spares_what_live_jobs_are_writing(tmp_path: Path) -> None:
    url = str(tmp_path / "out")
    jobs = [ArrayJob(index, 3) for index in range(3)]
    roots = [StoreRoot.open(url, create=True, scratch=job.name) for job in jobs]
    with ExitStack() as stack:
        for root, job in zip(roots[:2], jobs[:2], strict=True):
            stack.enter_context(store_lock(root, job))
            root.clear_scratch()
            (root.scratch_dir() / "shard.part").write_text(job.name)
        (roots[2].scratch_dir() / "left.part").write_text("by a run that was killed")
        with store_lock(roots[2], jobs[2]):
            roots[2].clear_scratch()
            assert not list(roots[2].scratch_dir().iterdir())
        for root, job in zip(roots[:2], jobs[:2], strict=True):
            assert (root.scratch_dir() / "shard.part").read_text() == job.name
            roots[2].write_atomic("shards/shard-000002.json", b"x")
            assert writers(root).jobs == tuple(jobs[:2])


def test_scratch_of_a_job_survives_pickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another working folder too, as that of an actor is; there, no other store is made."""
    import pickle

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    root = StoreRoot.open("out", create=True, scratch=ArrayJob(2, 3).name)
    packed = pickle.dumps(root)
    monkeypatch.chdir(elsewhere)
    again = pickle.loads(packed)  # noqa: S301
    own = tmp_path / "out" / ".tmp" / "job-00002-of-00003"
    assert again.scratch_dir() == root.scratch_dir() == own
    assert not list(elsewhere.iterdir())
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(StoreError, match="no folder"):
        pickle.loads(packed)  # noqa: S301


# one plan -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Four folders of different files, so that whoever comes first can be told by the plan."""
    made = []
    for number in range(4):
        folder = tmp_path / f"videos-{number}"
        folder.mkdir()
        for name in range(5):
            (folder / f"{number}-{name}.mp4").write_text("never decoded here")
        made.append(folder)
    return made


def race(url: str, folders: list[Path]) -> list[bytes]:
    """Jobs that all find no plan, let go at one moment; the plan that each one leaves with."""
    barrier = threading.Barrier(len(folders))

    def begin(index: int) -> list[tuple[int, str]]:
        job = ArrayJob(index, len(folders))
        root = StoreRoot.open(url, create=True, scratch=job.name)
        asked = Asked([str(folders[index])], resolve_precision(CONFIG), job=job)
        barrier.wait(30)
        with store_lock(root, job):
            _, _, plan = agree(root, asked, RunObserver())
            with plan:
                return [(entry.shard, entry.id) for entry in plan.entries()]

    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(begin, range(len(folders))))


@pytest.mark.parametrize("attempt", range(3))
def test_racing_jobs_freeze_one_plan_and_only_one_of_them_lists(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    frozen = []
    real = prepare.freeze_plan
    monkeypatch.setattr(prepare, "freeze_plan", lambda *a, **k: frozen.append(1) or real(*a, **k))
    plans = race(str(tmp_path / "out"), folders)
    assert all(plan == plans[0] for plan in plans)
    assert len(frozen) == 1


@pytest.mark.parametrize("attempt", range(3))
def test_racing_jobs_on_an_object_store_agree_too(folders: list[Path], memory_url: str, attempt: int) -> None:
    plans = race(memory_url, folders)
    assert all(plan == plans[0] for plan in plans)
    assert {entry[1][0] for entry in plans[0]} < set("0123")


def test_a_folder_whose_locks_do_nothing_still_has_one_plan(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems lock within one machine only."""
    from dyntok.run import lock

    monkeypatch.setattr(lock, "fcntl", None)
    plans = race(str(tmp_path / "out"), folders)
    assert all(plan == plans[0] for plan in plans)


def test_a_race_of_different_settings_has_one_winner(folders: list[Path], memory_url: str) -> None:
    """Without locks the first `dataset.json` counts, whoever's plan would have come first."""
    barrier = threading.Barrier(2)

    def begin(index: int) -> str:
        config = resolve_precision(demo_config(frames=4 + index))
        root = StoreRoot.open(memory_url, create=True)
        barrier.wait(30)
        try:
            _, info, plan = agree(root, Asked([str(folders[index])], config), RunObserver())
        except StoreMismatchError as error:
            return f"refused: {error.message}"
        with plan:
            return f"frames {info.config['frames']}, {next(plan.entries()).id[0]}"

    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(begin, range(2)))
    assert results[0] in ("frames 4, 0", "frames 5, 1")
    assert results[1].startswith("refused: ")
    assert "frames: was" in results[1]


def test_a_plan_frozen_before_is_what_jobs_encode(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = freeze([str(corpus)], str(out), CONFIG)
    assert (report.videos, report.shards) == (9, 5)
    assert status(str(out)).state == "planned"
    before = contents(out)
    assert set(before) == {"dataset.json", "plan.parquet"}
    freeze([str(corpus)], str(out), CONFIG)
    assert contents(out) == before
    with pytest.raises(StoreMismatchError, match="frames"):
        freeze([str(corpus)], str(out), demo_config(frames=5, shard_size="200KB"))


def test_a_job_cannot_change_the_plan_but_freeze_can(corpus: Path, tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    shutil.copytree(corpus, inputs)
    freeze([str(inputs)], str(out), CONFIG)
    shutil.copy(inputs / "0.mp4", inputs / "9.mp4")
    with pytest.raises(UsageError, match="cannot change the plan"):
        encode([str(inputs)], str(out), CONFIG, job=ArrayJob(0, 2), extend=True)
    with pytest.raises(StoreMismatchError, match="1 inputs are not in the plan"):
        freeze([str(inputs)], str(out), CONFIG)
    assert freeze([str(inputs)], str(out), CONFIG, extend=True).shards == 6
    with FrozenPlan.open(str(out / "plan.parquet")) as plan:
        assert [entry.id for entry in plan.shard(5)] == ["9.mp4"]


def test_a_job_checks_its_own_inputs(corpus: Path, tmp_path: Path, bikes: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    shutil.copytree(corpus, inputs)
    freeze([str(inputs)], str(out), CONFIG)
    shutil.copy(bikes, inputs / "3.mp4")  # in shard 1
    with pytest.raises(StoreMismatchError, match=r"3\.mp4 is not the input"):
        encode([str(inputs)], str(out), CONFIG, job=ArrayJob(1, 5))
    assert encode([str(inputs)], str(out), CONFIG, job=ArrayJob(0, 5)).done == 2


# object stores ------------------------------------------------------------------------------------------------


def test_jobs_on_an_object_store_make_the_same_store(corpus: Path, quiet: Path, memory_url: str) -> None:
    for index in range(2):
        encode([str(corpus)], memory_url, CONFIG, job=ArrayJob(index, 2))
    assert status(memory_url).state == "encoded"
    finalize(memory_url)
    assert contents(memory_url) == contents(quiet)
    assert status(memory_url).state == "complete"


@pytest.mark.slow
def test_two_writers_of_one_share_do_no_harm(corpus: Path, quiet: Path, memory_url: str) -> None:
    """There are no locks on object stores; the work is done twice, to the same bytes."""
    barrier = threading.Barrier(2)

    class AtOnce(RunObserver):
        def planned(self, videos: int, videos_done: int, shards: int, shards_done: int) -> None:
            barrier.wait(60)

    def run(_: int) -> int:
        return encode([str(corpus)], memory_url, CONFIG, job=ArrayJob(0, 1), observer=AtOnce()).already

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [0, 0]
    finalize(memory_url)
    assert contents(memory_url) == contents(quiet)
