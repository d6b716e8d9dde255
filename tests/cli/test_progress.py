"""The observer, with and without a terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from dyntok.records import VideoRow
from dyntok_cli.output import Output
from dyntok_cli.progress import CountingBar, RunProgress


@pytest.fixture(autouse=True)
def able_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(number: int, status: str = "done") -> VideoRow:
    error = f"clip{number}.mp4: a frame is broken"
    failed = {"error_class": "corrupt", "error": error} if status == "failed" else {}
    return VideoRow(f"clip{number}.mp4", f"key{number}", "source", number, status, **failed)


def watch(observer: RunProgress) -> None:
    """Ten videos of which two were done before and one fails."""
    with observer:
        observer.listing(4)
        observer.listing(10)
        observer.planned(10, 2, 3, 1)
        observer.model_loaded("demo", "cpu")
        for number in range(8):
            observer.frames(4, 784, 196)
            observer.video(row(number, "failed" if number == 5 else "done"))


def told(stream: io.StringIO, *, quiet: bool = False, line_every_s: float = 1e9) -> str:
    with redirect_stderr(stream):
        watch(RunProgress(Output(quiet=quiet), line_every_s))
    return stream.getvalue()


def test_without_a_terminal_there_are_lines_and_no_bar() -> None:
    text = told(io.StringIO())
    assert text == (
        "10 videos in 3 shards, 2 of them from before\n"
        "loading the model\n"
        "model demo on cpu\n"
        "failed: clip5.mp4: corrupt: a frame is broken\n"
    )


def test_lines_count_videos_and_kept_tokens() -> None:
    lines = told(io.StringIO(), line_every_s=0).splitlines()
    assert lines[-1].startswith("10/10 videos, ")
    assert lines[-1].endswith(" frames/s, 25.0 % of tokens kept, 1 failed")


def test_quiet_says_nothing() -> None:
    assert told(io.StringIO(), quiet=True) == ""
    assert told(Terminal(), quiet=True) == ""


def test_on_a_terminal_the_bar_ends_complete() -> None:
    text = told(Terminal())
    last = text.rstrip().split("\r")[-1]
    assert "encoding: 100%" in last
    assert "10/10" in last
    assert "25.0 % of tokens kept, 1 failed" in last
    assert "listing: 10input" in text
    assert "failed: clip5.mp4: corrupt" in text


@pytest.mark.parametrize(("stream", "bar"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_counting_bar_needs_a_terminal(stream: io.StringIO, bar: bool) -> None:
    with redirect_stderr(stream), CountingBar(Output(), "verifying", "B") as progress:
        progress(500, 1000)
        progress(2000, 2000)
    assert ("verifying: 100%" in stream.getvalue()) is bar


def test_files_that_are_passed_over_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(Output()) as progress:
        progress.skipped("notes.txt", "suffix")
        progress.skipped("more.txt", "suffix")
        progress.skipped(".DS_Store", "hidden")
        progress.planned(2, 0, 1, 0)
    assert "3 files passed over: 1 hidden, 2 without the suffix of a video" in capsys.readouterr().err
