"""Killed at any request that writes to an object store: before it is done, or after it and before it is known."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dyntok.run import status
from dyntok.store import verify
from tests.faults.points import CLIPS, DONE_WITH_FAILURES, FLAGS, Tally
from tests.faults.shim import Ended, Machine
from tests.faults.test_kills import members
from tests.run.test_object_stores import digests, quiet_s3
from tests.support.faulty_http import FaultyProxy
from tests.support.s3 import BUCKET, open_uploads, plain_s3, s3_server

OUT = f"s3://{BUCKET}/tokens"
WRITES = "PUT|POST|DELETE"
SMALL = (*FLAGS, "--shard-size", "100KB", "--decode-workers", "1")
# Enough for three parts of the least size that S3 takes.
LARGE = ("--model", "demo", "--frames", "60", "--layout", "explicit", "--dtype", "float32", "--device", "cpu")
PART_BYTES = 5 * 2**20
pytestmark = quiet_s3


@dataclass(frozen=True, slots=True)
class Bucket:
    """Runs into a bucket behind a proxy that kills them."""

    proxy: FaultyProxy
    machine: Machine
    corpus: Path

    def empty(self) -> None:
        self.proxy.clear()
        for path in plain_s3().find(BUCKET):
            plain_s3().rm_file(path)
        plain_s3().clear_multipart_uploads(BUCKET)
        plain_s3().invalidate_cache()
        self.proxy.clear()

    def encode(self, *flags: str) -> Ended:
        env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        arguments = ("encode", self.corpus, "--out", OUT, *flags)
        return self.machine.run(*arguments, env=env, part_bytes=PART_BYTES)

    def whole(self, flags: tuple[str, ...], path: str) -> tuple[dict[str, str], int]:
        """Digests of an undisturbed run, and how many of its requests write to such paths."""
        self.empty()
        ended = self.encode(*flags)
        assert ended.code == DONE_WITH_FAILURES, ended.text
        count = self.proxy.count(WRITES, path)
        check_complete()
        return digests(OUT), count

    def kill_driver(self) -> None:
        for pid in members(self.machine.pid)["driver"]:
            os.kill(pid, signal.SIGKILL)

    def strike(self, flags: tuple[str, ...], path: str, points: list[tuple[str, int]]) -> tuple[Tally, int]:
        """Kill at the n-th write to such a path, look, resume, look. The points, and uploads left and taken back."""
        expected, _ = self.whole(flags, path)
        tally, left = Tally(), 0
        for what, number in points:
            self.empty()
            fault = self.proxy.add(what, method=WRITES, path=path, skip=number - 1, action=self.kill_driver)
            try:
                ended = self.encode(*flags)
                struck = bool(fault.done)
                assert ended.code == (-9 if struck else DONE_WITH_FAILURES), ended.text
                self.proxy.clear()
                plain_s3().invalidate_cache()
                left += len(open_uploads())
                check_interrupted()
                resumed = self.encode(*flags)
                assert resumed.code == DONE_WITH_FAILURES, resumed.text
                assert digests(OUT) == expected
                assert not open_uploads(), "parts were left behind"
                check_complete()
                tally.ends["killed" if struck else "ended before"] += 1
            except Exception as error:  # noqa: BLE001 - told of at the end
                tally.wrong.append(f"{what} {number}: {type(error).__name__}: {error}")
        return tally, left


def check_interrupted() -> None:
    if not plain_s3().exists(f"{OUT}/dataset.json"):
        assert not plain_s3().find(f"{OUT}/shards")
        return
    report = verify(OUT)
    assert report.ok, report.findings
    assert report.complete == plain_s3().exists(f"{OUT}/manifest.json")


def check_complete() -> None:
    plain_s3().invalidate_cache()
    report = verify(OUT)
    assert report.ok and report.complete, report.findings
    assert (report.done, report.failed) == (len(CLIPS), 1)
    assert status(OUT).state == "complete"


@pytest.fixture(scope="module")
def bucket(machine: Machine, corpus: Path) -> Iterator[Bucket]:
    with s3_server() as proxy:
        yield Bucket(proxy, machine, corpus)


def held(tally: Tally) -> None:
    assert not tally.wrong, f"{tally}\n" + "\n".join(tally.wrong)
    assert tally.ends["killed"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_some_requests(bucket: Bucket) -> None:
    held(bucket.strike(SMALL, "tokens/(?!logs)", [("reset", 3), ("late", 5), ("reset", 9), ("late", 12)])[0])


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("flags", "path"), [(SMALL, "tokens/"), (LARGE, "shard-000000.tar")])
def test_every_request(bucket: Bucket, flags: tuple[str, ...], path: str, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    _, count = bucket.whole(flags, path)
    kinds = Counter(method for method, where in bucket.proxy.log if method in WRITES)
    points = [(what, number) for number in range(1, count + 1) for what in ("reset", "late")]
    tally, left = bucket.strike(flags, path, points)
    seconds = time.monotonic() - begun
    with capsys.disabled():
        print(f"\n{path}: {tally}; {dict(kinds)}; {left} uploads left and taken back, {seconds:.0f} s")
    held(tally)
