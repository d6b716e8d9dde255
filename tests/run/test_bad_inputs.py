"""Every input ends as done or failed with its reason, and nothing hangs past its limit."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import dyntok
from dyntok.errors import VIDEO_ERROR_CODES
from dyntok.run import encode, status
from dyntok.store import StoreIndex, StoreRoot, verify
from tests.support.looping import loop_clip
from tests.support.runs import command, demo_config, environment

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"


def rows_of(out: Path) -> dict[str, tuple[str, str, str]]:
    index = StoreIndex.open(StoreRoot.open(str(out)))
    rows = [index.row(position)[1] for position in range(len(index))]
    return {row.id: (row.status, row.error_class, row.error) for row in rows}


def test_each_bad_file_has_its_reason(carphone: Path, bikes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    whole = bikes.read_bytes()
    (folder / "good.mp4").write_bytes(carphone.read_bytes())
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "head.mp4").write_bytes(whole[:600])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("once upon a time\n" * 50)
    (folder / "list.mp4").write_text(PLAYLIST.format(target=carphone))
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {carphone}\n")
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "locked.mp4").symlink_to("/proc/self/mem")
    report = encode([str(folder)], str(tmp_path / "out"), demo_config())
    rows = rows_of(tmp_path / "out")
    assert report.videos == len(rows)
    assert rows["good.mp4"][0] == "done"
    expected = {
        "empty.mp4": "empty",
        "list.mp4": "playlist",
        "concat.mp4": "playlist",
        "zeros.mp4": "not_a_video",
    }
    assert {name: rows[name][1] for name in expected} == expected
    for name in ("truncated.mp4", "head.mp4", "text.mp4"):
        assert rows[name][0] == "failed"
        assert rows[name][1] in VIDEO_ERROR_CODES
        assert name in rows[name][2]
    assert verify(str(tmp_path / "out")).ok


def test_a_playlist_never_makes_the_decoder_open_what_it_names(tmp_path: Path) -> None:
    """A FIFO stands where the playlists point: opening it for reading would be seen by its writer."""
    trap = tmp_path / "trap.ts"
    os.mkfifo(trap)
    opened = threading.Event()

    def watch() -> None:
        with open(trap, "wb"):
            opened.set()

    threading.Thread(target=watch, daemon=True).start()
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("a.m3u8", "b.mp4", "c.mkv", "d.avi", "e.mp4", "f.mp4")
    texts = (
        PLAYLIST.format(target=trap),
        PLAYLIST.format(target=f"file://{trap}"),
        f"ffconcat version 1.0\nfile {trap}\n",
        f"ffconcat version 1.0\nfile 'file:{trap}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=control:{trap}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>{trap}</BaseURL></MPD>',
    )
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_text(text)
    paths = [str(folder / name) for name in names]
    report = encode(paths, str(tmp_path / "out"), demo_config())
    assert (report.done, report.failed) == (0, 6)
    assert not opened.is_set(), "a playlist was followed"


def test_bit_flipped_files_all_end_with_a_reason(carphone: Path, tmp_path: Path) -> None:
    """Flips anywhere in the file, headers included. The slow test does the same with 200 files."""
    flip_and_encode(carphone, tmp_path, files=24, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_bit_flipped_files_all_end_with_a_reason(carphone: Path, bikes: Path, tmp_path: Path) -> None:
    flip_and_encode(carphone, tmp_path / "a", files=100, seed=2)
    flip_and_encode(bikes, tmp_path / "b", files=100, seed=3)


def flip_and_encode(clip: Path, tmp_path: Path, files: int, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir(parents=True)
    for number in range(files):
        data = bytearray(clip.read_bytes())
        region = len(data) if number % 2 else 4000
        for _ in range(rng.choice((1, 3, 20))):
            at = rng.randrange(region) if rng.random() < 0.5 else len(data) - 1 - rng.randrange(region)
            data[at] ^= 1 << rng.randrange(8)
        (folder / f"{number:03d}.mp4").write_bytes(data)
    start = time.monotonic()
    report = encode([str(folder)], str(tmp_path / "out"), demo_config(decode_timeout_s=20.0))
    rows = rows_of(tmp_path / "out")
    assert len(rows) == report.videos == report.done + report.failed == files
    for state, code, message in rows.values():
        assert state == "done" or (code in VIDEO_ERROR_CODES and message)
    assert status(str(tmp_path / "out")).pending == 0
    assert verify(str(tmp_path / "out")).ok
    print(f"{report.done} done, {report.failed} failed in {time.monotonic() - start:.0f} s")


def test_a_decode_that_hangs_is_ended_at_its_limit(carphone: Path, tmp_path: Path) -> None:
    """A decode process is stopped in the middle of one of two long videos: for the run, it hangs for ever."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        loop_clip(carphone, folder / name, 600)
    # Enough frames that decoding is not over before it can be stopped.
    flags = ("--model", "demo", "--frames", "100", "--decode-workers", "1", "--decode-timeout", "8")
    arguments = command("encode", folder, "--out", tmp_path / "out", *flags)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        decoder = wait_for_decoder(psutil.Process(process.pid))
        decoder.suspend()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    rows = rows_of(tmp_path / "out")
    hung = [name for name, row in rows.items() if row[0] == "failed"]
    assert len(hung) == 1, rows
    assert rows[hung[0]][1:] == ("timeout", f"{hung[0]}: decoding took longer than 8 s")
    assert [row[0] for name, row in rows.items() if name not in hung] == ["done"]
    assert not decoder.is_running()


def wait_for_decoder(run: psutil.Process) -> psutil.Process:
    """The decode process of a run with one: the child of its only child, once it has used some CPU."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(psutil.NoSuchProcess):
            for child in run.children(recursive=True):
                busy = sum(child.cpu_times()[:2]) > 0.05
                if child.ppid() != run.pid and busy:
                    return child
        time.sleep(0.002)
    raise AssertionError("no decode process was started")


def test_pipes_and_devices_are_no_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"path": "pipe.mp4"}\n{"path": "/dev/zero"}\n')
    report = encode([str(manifest)], str(tmp_path / "out"), demo_config())
    assert (report.done, report.failed) == (0, 2)


def test_claims_of_frames_that_are_not_there(carphone: Path, tmp_path: Path) -> None:
    """A table of 5,000 frames over the data of about 50; and headers that claim what the table does not have."""
    folder = tmp_path / "in"
    folder.mkdir()
    whole = tmp_path / "whole.mp4"
    frames = loop_clip(carphone, whole, 170, movflags="faststart")
    assert frames > 5000
    data = whole.read_bytes()
    media = data.index(b"mdat")
    (folder / "cut.mp4").write_bytes(data[: media + (len(data) - media) * 50 // frames])
    short = bytearray(carphone.read_bytes())
    count = short.index(b"stts") + 12
    short[count : count + 4] = (5000).to_bytes(4, "big")
    (folder / "claims.mp4").write_bytes(short)
    encode([str(folder)], str(tmp_path / "out"), demo_config())
    rows = rows_of(tmp_path / "out")
    assert rows["cut.mp4"][:2] == ("failed", "truncated")
    assert f"whole frames of {frames}" in rows["cut.mp4"][2]
    assert rows["claims.mp4"][0] == "done"
    assert dyntok.open(tmp_path / "out")["claims.mp4"].meta["video"]["frames_total"] == 120
