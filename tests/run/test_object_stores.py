"""The whole path over object stores: one in memory that fails on request, and an S3 server on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

import dyntok
from dyntok.errors import DyntokError, StoreUnavailableError
from dyntok.objects import multipart, retries
from dyntok.run import encode, status
from dyntok.store import StoreRoot, convert, verify
from tests.run.test_bad_inputs import rows_of
from tests.support.faulty_fs import Fault, FaultyFileSystem, denied, faulty_store, reset, throttled
from tests.support.faulty_http import FaultyProxy
from tests.support.runs import command, demo_config, environment, result_digests, run_command
from tests.support.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, open_uploads, plain_s3, s3_server, stored_parts
from tests.support.warm import WarmPopen

CLIPS = ("bikes.mp4", "carphone_pristine.mp4")
OUT = f"s3://{BUCKET}/tokens"
SMALL = {"shard_size": "100KB", "decode_workers": 1}
FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "100KB", "--device", "cpu")
quiet_s3 = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def on_s3(function):
    for mark in (pytest.mark.slow, pytest.mark.timeout(600), *quiet_s3):
        function = mark(function)
    return function


@pytest.fixture
def memory_url() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def s3(server: FaultyProxy) -> Iterator[FaultyProxy]:
    """The server with the clips under `videos/`, and nothing else."""
    server.clear()
    for path in plain_s3().find(BUCKET):
        plain_s3().rm_file(path)
    plain_s3().clear_multipart_uploads(BUCKET)
    plain_s3().invalidate_cache()
    yield server
    server.clear()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FaultyFileSystem]]:
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    with faulty_store() as store:
        yield store


@pytest.fixture(scope="module")
def reference(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos, encoded on disk into a shard each."""
    out = tmp_path_factory.mktemp("reference") / "store"
    encode([str(clip_folder / name) for name in CLIPS], str(out), demo_config(**SMALL))
    assert (out / "shards" / "shard-000001.tar").exists()
    return out


def digests(url: str) -> dict[str, str]:
    """As `result_digests`, of a store on an object store."""
    root = StoreRoot.open(url)
    return {
        path: hashlib.sha256(root.read_bytes(path)).hexdigest()
        for path in root.list()
        if path.startswith("shards/") or path in ("index.parquet", "row_marker.safetensors")
    }


def contents(found: dict[str, str]) -> dict[str, str]:
    """Without records: they hold the inputs' fingerprints, which are etags where object stores give them."""
    return {path: digest for path, digest in found.items() if not path.endswith(".json")}


def round_trip(url: str, inputs: list[str], clip_folder: Path, tmp_path: Path) -> None:
    """Encode into the object store, resume, read, verify, convert; against the same run on disk."""
    fs, _ = fsspec.url_to_fs(url)
    local = tmp_path / "local"
    encode([str(clip_folder / name) for name in CLIPS], str(local), demo_config())

    out = f"{url}/tokens"
    report = encode(inputs, out, demo_config())
    assert (report.done, report.failed) == (2, 0)
    assert encode(inputs, out, demo_config()).already == 2
    assert status(out).state == "complete"
    assert verify(out).ok
    stored, same = dyntok.open(out), dyntok.open(local)
    for name in CLIPS:
        assert torch.equal(stored[name].at(frames=2).tokens, same[name].at(frames=2).tokens)
    assert contents(digests(out)) == contents(result_digests(local))

    convert(out, f"{url}/zarr", format="zarr")
    assert verify(f"{url}/zarr").ok
    assert torch.equal(dyntok.open(f"{url}/zarr")[CLIPS[0]].at().tokens, same[CLIPS[0]].at().tokens)

    # Without its record a shard does not exist, whatever lies there.
    fs.rm_file(f"{out}/shards/shard-000000.json")
    fs.rm_file(f"{out}/manifest.json")
    assert encode([], out, demo_config()).already == 0
    assert verify(out).ok


def test_in_memory(memory_url: str, clip_folder: Path, tmp_path: Path) -> None:
    """The videos too: this process fetches them for its decode processes, which cannot see its memory."""
    fs = fsspec.filesystem("memory")
    for name in CLIPS:
        fs.pipe_file(f"/videos/{name}", (clip_folder / name).read_bytes())
    round_trip(memory_url, ["memory://videos"], clip_folder, tmp_path)


@on_s3
def test_s3(s3: FaultyProxy, clip_folder: Path, tmp_path: Path) -> None:
    for name in CLIPS:
        plain_s3().put_file(str(clip_folder / name), f"{BUCKET}/videos/{name}")
    round_trip(f"s3://{BUCKET}", [f"s3://{BUCKET}/videos"], clip_folder, tmp_path)


@on_s3
def test_a_tar_of_videos_on_s3(s3: FaultyProxy, clip_folder: Path, reference: Path, tmp_path: Path) -> None:
    """Members are fetched by their byte ranges alone."""
    tar = tmp_path / "clips.tar"
    names = [*CLIPS, "bigbuckbunny.mp4"]
    subprocess.run(["tar", "-cf", tar, "-C", clip_folder, *names], check=True)
    plain_s3().put_file(str(tar), f"{BUCKET}/clips.tar")
    manifest = tmp_path / "two.tar"
    subprocess.run(["tar", "-cf", manifest, "-C", clip_folder, *CLIPS], check=True)
    plain_s3().put_file(str(manifest), f"{BUCKET}/two.tar")
    s3.clear()
    report = encode([f"s3://{BUCKET}/two.tar"], str(tmp_path / "out"), demo_config(**SMALL))
    assert (report.done, report.failed) == (2, 0)
    wanted = sum((clip_folder / name).stat().st_size for name in CLIPS)
    assert wanted <= s3.bytes_out < 1.5 * wanted + 2**20
    mine, same = dyntok.open(tmp_path / "out"), dyntok.open(reference)
    for name in CLIPS:
        assert torch.equal(mine[name].at().tokens, same[name].at().tokens)


# faults that pass --------------------------------------------------------------------------------------------

EVERYTHING = "info|ls|find|cat_file|pipe_file|put_file|rm_file"


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_faults_on_the_way_change_nothing(
    shard_format: str, faulty: type[FaultyFileSystem], clip_folder: Path, reference: Path
) -> None:
    """Every fifth call or so fails, from the listing of the inputs to the last byte of the manifest."""
    fs = fsspec.filesystem("faulty")
    for name in CLIPS:
        fs.pipe_file(f"/videos/{name}", (clip_folder / name).read_bytes())
    faulty.faults += [Fault(EVERYTHING, error=throttled, skip=skip) for skip in range(0, 400, 7)]
    faulty.faults += [Fault(EVERYTHING, error=reset, skip=skip) for skip in range(3, 400, 11)]
    faulty.faults += [Fault("cat_file", skip=skip) for skip in range(0, 40, 5)]
    faulty.faults += [Fault("put_file|pipe_file", skip=skip) for skip in range(0, 40, 5)]
    out = "faulty://bucket/tokens"
    config = demo_config(**SMALL, format=shard_format)
    report = encode(["faulty://videos"], out, config)
    assert (report.done, report.failed) == (2, 0)
    struck = sum(fault.done for fault in faulty.faults)
    assert struck > 20, struck
    assert verify(out).ok and status(out).state == "complete"
    mine, same = dyntok.open(out), dyntok.open(reference)
    for name in CLIPS:
        assert torch.equal(mine[name].at().tokens, same[name].at().tokens)
    if shard_format == "webdataset":
        assert digests(out) == result_digests(reference)


@on_s3
def test_an_s3_that_throttles_resets_and_breaks_off(
    s3: FaultyProxy, clip_folder: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    for name in CLIPS:
        plain_s3().put_file(str(clip_folder / name), f"{BUCKET}/videos/{name}")
    s3.clear()
    for what, step in (("status", 5), ("reset", 7), ("short", 6)):
        for skip in range(2, 200, step):
            s3.add(what, method="GET" if what == "short" else ".*", skip=skip)
    report = encode([f"s3://{BUCKET}/videos"], OUT, demo_config(**SMALL))
    assert (report.done, report.failed) == (2, 0), [row.error for row in report.failures]
    assert sum(fault.done for fault in s3.faults) > 20
    s3.clear()
    assert contents(digests(OUT)) == contents(result_digests(reference))


# faults that stay --------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_is_a_clear_failure_and_resumes(
    faulty: type[FaultyFileSystem], clip_folder: Path, reference: Path
) -> None:
    inputs, out = [str(clip_folder / name) for name in CLIPS], "faulty://bucket/tokens"
    # The put dies midway, every time: half a shard lies there.
    faulty.faults.append(Fault("put_file", "shard-000001", times=-1))
    with pytest.raises(StoreUnavailableError, match=r"shards/shard-000001\.tar.*\(7 tries\)") as caught:
        encode(inputs, out, demo_config(**SMALL))
    assert caught.value.hint and "same command" in caught.value.hint
    root = StoreRoot.open(out)
    assert root.exists("shards/shard-000001.tar") and not root.exists("shards/shard-000001.json")
    assert (status(out).state, status(out).shards_done) == ("incomplete", 1)
    assert verify(out).ok
    faulty.faults[:] = [Fault("pipe_file", "manifest", error=denied, times=-1)]
    with pytest.raises(StoreUnavailableError, match=r"manifest\.json: Access Denied") as caught:
        encode(inputs, out, demo_config(**SMALL))
    assert faulty.faults[0].done == 1 and caught.value.hint and "credentials" in caught.value.hint
    faulty.faults.clear()
    assert encode([], out, demo_config(**SMALL)).already == 2
    assert digests(out) == result_digests(reference)


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(
    faulty: type[FaultyFileSystem], clip_folder: Path
) -> None:
    """Or else its plan would be frozen anew, over the one that is there."""
    fsspec.filesystem("faulty").pipe_file("/bucket/tokens/dataset.json", b"{}")
    for error in (throttled, denied):
        faulty.faults[:] = [Fault("info|ls|find", "tokens", error=error, times=-1)]
        with pytest.raises(StoreUnavailableError):
            encode([str(clip_folder / CLIPS[0])], "faulty://bucket/tokens", demo_config())
        with pytest.raises(StoreUnavailableError):
            verify("faulty://bucket/tokens")


def test_inputs_that_cannot_be_read_fail_with_their_reason(
    faulty: type[FaultyFileSystem], clip_folder: Path, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("faulty")
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        fs.pipe_file(f"/videos/{name}", (clip_folder / CLIPS[1]).read_bytes())
    faulty.faults += [
        Fault("cat_file", "a.mp4", error=denied, skip=1, times=-1),
        Fault("cat_file", "b.mp4", error=reset, skip=1, times=-1),
        Fault("cat_file", "c.mp4", error=FileNotFoundError, skip=1, times=-1),
    ]
    report = encode(["faulty://videos"], str(tmp_path / "out"), demo_config())
    assert (report.done, report.failed) == (1, 3)
    rows = rows_of(tmp_path / "out")
    assert rows["a.mp4"][1:] == ("unreadable", "a.mp4 cannot be read: Access Denied")
    assert rows["b.mp4"][1:] == ("unreadable", "b.mp4 cannot be read: Connection reset by peer (7 tries)")
    assert rows["c.mp4"][1] == "not_found"
    assert rows["d.mp4"][0] == "done"


@on_s3
def test_errors_of_the_s3_client_have_their_class(
    s3: FaultyProxy, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.Patience, "wait_s", lambda self, failed: 0.001)
    for name in ("a", "b", "c", "d", "e"):
        plain_s3().put_file(str(clip_folder / CLIPS[1]), f"{BUCKET}/videos/{name}.mp4")
    encode([f"s3://{BUCKET}/videos"], str(tmp_path / "planned"), demo_config(frames=1))
    shutil.rmtree(tmp_path / "planned" / "shards")
    (tmp_path / "planned" / "manifest.json").unlink()
    s3.add("status", method="GET", path="a.mp4", status=403, code="AccessDenied", times=-1)
    s3.add("reset", method="GET", path="b.mp4", times=-1)
    plain_s3().rm_file(f"{BUCKET}/videos/c.mp4")
    plain_s3().put_file(str(clip_folder / CLIPS[0]), f"{BUCKET}/videos/d.mp4")
    report = encode([], str(tmp_path / "planned"), demo_config(frames=1))
    rows = rows_of(tmp_path / "planned")
    assert (report.done, report.failed) == (1, 4)
    classes = {name: rows[f"{name}.mp4"][1] for name in "abcde"}
    assert classes == {"a": "unreadable", "b": "unreadable", "c": "not_found", "d": "changed", "e": ""}


# killed in the middle of an upload ---------------------------------------------------------------------------

KILLED = """
import sys
from dyntok.objects import multipart
multipart.PART_BYTES = 5 * 2**20
from dyntok_cli.main import main
main(sys.argv[1:])
"""
BIG = ("--model", "demo", "--frames", "60", "--layout", "explicit", "--dtype", "float32", "--device", "cpu")


@on_s3
def test_killed_in_the_middle_of_an_upload_and_resumed(
    s3: FaultyProxy, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [str(clip_folder / name) for name in CLIPS]
    done = run_command("encode", *inputs, "--out", tmp_path / "whole", *BIG)
    assert done.returncode == 0, done.stderr
    expected = result_digests(tmp_path / "whole")
    assert (tmp_path / "whole" / "shards" / "shard-000000.tar").stat().st_size > 11 * 2**20

    arrived = threading.Event()
    s3.add("stall", method="PUT", path="partNumber=2", action=arrived.set)
    arguments = [sys.executable, "-c", KILLED, "encode", *inputs, "--out", OUT, *BIG]
    with WarmPopen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert arrived.wait(120), "no part was sent"
        until = time.monotonic() + 60
        while 1 not in stored_parts() and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert 1 in stored_parts() and 2 not in stored_parts(), "killed between parts"
    assert open_uploads() == ["tokens/shards/shard-000000.tar"]
    assert not plain_s3().exists(f"{BUCKET}/tokens/shards/shard-000000.tar")
    assert not plain_s3().exists(f"{BUCKET}/tokens/shards/shard-000000.json")
    assert status(OUT).state == "planned" and verify(OUT).ok

    s3.clear()
    with WarmPopen(arguments, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert s3.count("PUT", "partNumber") >= 3
    assert digests(OUT) == expected
    assert not open_uploads(), "parts were left behind"


@on_s3
def test_an_interrupt_takes_the_upload_back(s3: FaultyProxy, clip_folder: Path, tmp_path: Path) -> None:
    inputs = [str(clip_folder / name) for name in CLIPS]
    program = [sys.executable, "-c", KILLED, "encode", *inputs, "--out", OUT, *BIG]
    arguments = [*program, "--grace-period", "0"]  # else the shard in work would be committed
    with WarmPopen(arguments, stderr=subprocess.PIPE, text=True, env=environment()) as process:

        def interrupt() -> None:
            process.send_signal(signal.SIGTERM)
            time.sleep(1.0)

        s3.add("call", method="PUT", path="partNumber", action=interrupt)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not open_uploads()


# secrets -----------------------------------------------------------------------------------------------------

SECRET = "S3CR3T-do-not-show"


def everything_written(fs: fsspec.AbstractFileSystem, top: str) -> dict[str, bytes]:
    """Every object but the plan, whose column `path` is documented to hold what is opened again."""
    return {path: fs.cat_file(path) for path in fs.find(top) if not path.endswith("plan.parquet")}


def test_credentials_in_urls_are_not_shown(
    faulty: type[FaultyFileSystem],
    clip_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    fs = fsspec.filesystem("faulty")
    inside = f"user:{SECRET}@videos"
    for name in ("a.mp4", "b.mp4"):
        fs.pipe_file(f"/{inside}/{name}", (clip_folder / CLIPS[1]).read_bytes())
    manifest = tmp_path / "list.jsonl"
    lines = [
        f'{{"path": "faulty://{inside}/a.mp4"}}',
        f'{{"path": "faulty://{inside}/b.mp4"}}',
        f'{{"path": "http://user:{SECRET}@127.0.0.1:9/c.mp4?X-Amz-Signature={SECRET}"}}',
    ]
    manifest.write_text("\n".join(lines))
    faulty.faults.append(Fault("cat_file", "b.mp4", error=denied, skip=1, times=-1))
    out = f"faulty://user:{SECRET}@bucket/tokens"
    report = encode([str(manifest)], out, demo_config())
    assert (report.done, report.failed) == (1, 2)
    shown = [repr(report), str(report.to_json()), repr(status(out)), str(verify(out).to_json())]
    store = dyntok.open(out)
    shown += [repr(store), repr(store.root), repr(store[store.ids[0]])]
    for operation in ("info", "cat_file", "ls|find"):
        faulty.faults.append(
            Fault(operation, "bucket", error=lambda: OSError(f"no: {out}?t={SECRET} user:{SECRET}"), times=-1)
        )
        calls = [lambda: verify(out), lambda: encode([], out, demo_config())]
        for call in calls if operation == "info" else calls[:1]:
            with pytest.raises(DyntokError) as caught:
                call()
            shown += [str(caught.value), repr(caught.value), str(caught.value.hint)]
        faulty.faults.pop()
    # What drivers log of themselves when asked to debug is theirs.
    shown += [*capfd.readouterr()]
    shown += [record.getMessage() for record in caplog.records if not record.name.startswith("fsspec")]
    for text in shown:
        assert SECRET not in text
    written = everything_written(fs, f"/user:{SECRET}@bucket")
    assert any(path.endswith(".jsonl") for path in written), "the log is among them"
    for path, data in written.items():
        assert SECRET.encode() not in data, path


@on_s3
def test_s3_credentials_are_not_shown(s3: FaultyProxy, clip_folder: Path, tmp_path: Path) -> None:
    """Of a run that works, one whose videos fail, and one that fails, with tracebacks."""
    plain_s3().put_file(str(clip_folder / CLIPS[1]), f"{BUCKET}/videos/a.mp4")
    plain_s3().put_file(str(clip_folder / CLIPS[1]), f"{BUCKET}/videos/b.mp4")
    s3.add("status", method="GET", path="b.mp4", skip=1, times=-1, status=403, code="SignatureDoesNotMatch")
    inputs = f"s3://{BUCKET}/videos"
    runs = [
        run_command("encode", inputs, "--out", OUT, *FLAGS, "--debug"),
        run_command("status", OUT, "--failed", "--debug"),
        run_command("verify", OUT, "--debug", "--json"),
        run_command("encode", inputs, "--out", f"s3://{ACCESS_KEY}:{SECRET_KEY}@{BUCKET}/x", *FLAGS, "--debug"),
        run_command("verify", f"s3://{BUCKET}/none?token={SECRET_KEY}", "--debug"),
    ]
    assert runs[0].returncode in (0, 3), runs[0].stderr
    s3.clear()
    s3.add("status", method="PUT", times=-1, status=403, code="InvalidAccessKeyId")
    runs.append(run_command("encode", inputs, "--out", f"s3://{BUCKET}/other", *FLAGS, "--debug"))
    assert runs[-1].returncode == 1 and "hint: check the credentials" in runs[-1].stderr
    assert "Traceback" in runs[-1].stderr
    s3.clear()
    printed = [run.stdout + run.stderr for run in runs]
    for secret in (SECRET_KEY, ACCESS_KEY):
        for text in printed:
            assert secret not in text, text
        for path, data in everything_written(plain_s3(), BUCKET).items():
            assert secret.encode() not in data, path


def test_the_helpers_of_these_tests_find_what_is_shown() -> None:
    """A check that could not fail would be worth nothing."""
    try:
        raise ValueError(SECRET)
    except ValueError:
        assert SECRET in traceback.format_exc()
    assert multipart.PART_BYTES >= 5 * 2**20
    assert command("x")[-1] == "x"
