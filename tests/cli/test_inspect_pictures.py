"""`dyntok inspect --png`, `--contact-sheet` and `--clip`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

import dyntok
from dyntok.pictures import SourceVideo, VideoPictures, Views
from tests.cli.conftest import Ran, digests

VIDEO, FRAMES = "carphone_pristine.mp4", 3


def frames_of(path: Path) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def pictures(store: Path, views: Views, *, with_source: bool = True) -> VideoPictures:
    opened = dyntok.open(store)
    source = SourceVideo.of(opened, VIDEO, opened[VIDEO].head.frames) if with_source else None
    return VideoPictures(opened, VIDEO, views, source)


def test_a_frame_at_several_thresholds(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    flags = ("--threshold", "0.4,0.5", "--threshold", "0.6", "--similarity", "--json")
    ran = cli("inspect", store, VIDEO, "--png", tmp_path / "a.png", "--frame", 2, *flags)
    assert ran.code == 0, ran.stderr
    assert f"wrote {tmp_path / 'a.png'}: frame 2" in ran.stderr
    assert ran.json["pictures"] == [str(tmp_path / "a.png")]
    for level, threshold in zip(ran.json["levels"], (0.4, 0.5, 0.6), strict=True):
        tokens = dyntok.open(store)[VIDEO].at(threshold)
        assert (level["threshold"], level["tokens"]) == (threshold, len(tokens))
        assert level["frame_tokens"] == tokens.row_splits[::14].diff().tolist()
    wanted = pictures(store, Views((0.4, 0.5, 0.6), similarity=True)).frame(2)
    assert np.array_equal(frames_of(tmp_path / "a.png")[0], wanted)


def test_the_middle_or_the_frame_of_a_time(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    assert ": frame 1" in cli("inspect", store, VIDEO, "--png", tmp_path / "a.png").stderr
    assert ": frame 2" in cli("inspect", store, VIDEO, "--png", tmp_path / "a.png", "--time", 60).stderr
    assert ": frame 0" in cli("inspect", store, VIDEO, "--png", tmp_path / "a.png", "--time", 0.1).stderr


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_sheet_and_a_clip(suffix: str, store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    sheet, clip = tmp_path / "sheet.png", tmp_path / f"clip.{suffix}"
    ran = cli("inspect", store, VIDEO, "--contact-sheet", sheet, "--tiles", 2, "--clip", clip, "--size", 140, "-q")
    assert (ran.code, ran.stderr) == (0, "")
    drawn = pictures(store, Views((0.6,), side=140))
    assert np.array_equal(frames_of(sheet)[0], drawn.sheet(2))
    frames = frames_of(clip)
    assert len(frames) == FRAMES
    for frame, strip in zip(frames, drawn.clip(), strict=True):
        height, width = strip.shape[:2]
        assert frame.shape[:2] == ((height + 1) // 2 * 2, (width + 1) // 2 * 2) if suffix == "mp4" else strip.shape
        assert np.median(np.abs(frame[:height, :width].astype(int) - strip)) < 12


def test_the_threshold_of_a_budget_is_drawn(store: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    png = tmp_path / "a.png"
    document = cli("inspect", store, VIDEO, "--budget", 150, "--png", png, "--frame", 0, "--json").json
    threshold = dyntok.open(store)[VIDEO].at(budget=150).threshold
    assert document["threshold"] == threshold
    assert np.array_equal(frames_of(png)[0], pictures(store, Views((threshold,))).frame(0))


@pytest.fixture
def moved(tmp_path: Path, clip_folder: Path, cli: Callable[..., Ran]) -> tuple[Path, Path]:
    """A store, and its source, which may be changed."""
    clip = Path(shutil.copy(clip_folder / VIDEO, tmp_path / VIDEO))
    ran = cli("encode", clip, "--out", tmp_path / "out", "--model", "demo", "--frames", FRAMES, "-q")
    assert ran.code == 0, ran.stderr
    return tmp_path / "out", clip


def test_without_its_source_the_grid_alone_is_drawn(
    moved: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    store, clip = moved
    png, other = tmp_path / "a.png", tmp_path / "b.png"
    clip.rename(tmp_path / "elsewhere.mp4")
    before = digests(store)
    ran = cli("inspect", store, VIDEO, "--png", png)
    assert ran.code == 0
    assert "drawing the patch grid alone" in ran.stderr
    wanted = pictures(store, Views((0.6,)), with_source=False).frame(1)
    assert np.array_equal(frames_of(png)[0], wanted)
    ran = cli("inspect", store, VIDEO, "--png", other, "--no-source")
    assert "alone" not in ran.stderr
    assert other.read_bytes() == png.read_bytes()
    ran = cli("inspect", store, VIDEO, "--png", other, "--source", tmp_path / "elsewhere.mp4")
    assert ran.code == 0
    assert other.read_bytes() != png.read_bytes()
    assert digests(store) == before


def test_a_changed_source_is_refused(moved: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Ran]) -> None:
    store, clip = moved
    clip.write_bytes(clip.read_bytes()[:-1] + b"!")
    ran = cli("inspect", store, VIDEO, "--png", tmp_path / "a.png")
    assert ran.code == 1
    assert "not the file that was encoded" in ran.error
    assert "--no-source" in ran.hint
    assert not (tmp_path / "a.png").exists()
    assert cli("inspect", store, VIDEO, "--png", tmp_path / "a.png", "--no-source").code == 0


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--frame", "1"), "--frame is about a picture"),
        (("--similarity",), "--similarity is about a picture"),
        (("--no-source",), "--no-source is about a picture"),
        (("--png", "a.png", "--tiles", "2"), "--tiles is about a picture"),
        (("--png", "a.png", "--rate", "2"), "--rate is about a picture"),
        (("--png", "a.png", "--frame", "1", "--time", "1"), "exclude each other"),
        (("--png", "a.png", "--source", "x", "--no-source"), "exclude each other"),
        (("--png", "a.jpg"), "does not end in .png"),
        (("--clip", "a.png"), "does not end in .mp4 or .gif"),
        (("--png", "a.png", "--frame", "3"), "frames 0 to 2"),
        (("--png", "a.png", "--size", "4"), "pixels long"),
        (("--threshold", "0.4,high"), "no list of numbers"),
        (("--threshold", "nan"), "no list of numbers"),
        (("--threshold", "0.4,0.5", "--budget", "100"), "one threshold at most"),
    ],
)
def test_flags_that_make_no_sense(
    flags: tuple[str, ...],
    error: str,
    store: Path,
    cli: Callable[..., Ran],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("inspect", store, VIDEO, *flags)
    assert ran.code == 2
    assert error in ran.error
    assert not list(tmp_path.iterdir())


def test_pictures_need_a_video(store: Path, cli: Callable[..., Ran]) -> None:
    assert cli("inspect", store, "--png", "a.png").code == 2
    assert cli("inspect", store, "nothing.mp4", "--png", "a.png").code == 2


def test_several_thresholds_as_text(store: Path, cli: Callable[..., Ran]) -> None:
    text = cli("inspect", store, VIDEO, "--threshold", "0.4,0.6").stdout
    video = dyntok.open(store)[VIDEO]
    for threshold in (0.4, 0.6):
        assert f"threshold {threshold:g}: {len(video.at(threshold)):,} tokens" in text
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["1"])
    counts = [video.at(threshold).row_splits[::14].diff()[1].item() for threshold in (0.4, 0.6)]
    assert [row[3], row[6]] == [str(n) for n in counts]
