"""What is written can be read again."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow

from dyntok.errors import UsageError
from dyntok.pictures import write_movie, write_png
from dyntok.pictures.labels import check_pillow, label
from dyntok.pictures.sheets import sheet, sheet_columns

Image = npt.NDArray[np.uint8]


def flat(number: int, height: int = 62, width: int = 91) -> Image:
    """Halves of two colours that differ from frame to frame."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2] = (20 * number, 200 - 20 * number, 60)
    image[:, width // 2 :] = (240, 30 * number, 250 - 30 * number)
    return image


def decoded(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_png_holds_the_very_pixels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    write_png(str(tmp_path / "a.png"), image)
    assert np.array_equal(np.asarray(Pillow.open(tmp_path / "a.png")), image)
    assert np.array_equal(decoded(tmp_path / "a.png")[0], image)


@pytest.mark.parametrize(("name", "size", "off"), [("a.mp4", (62, 92), 12), ("a.GIF", (62, 91), 6)])
def test_a_movie_has_its_frames_in_order(name: str, size: tuple[int, int], off: int, tmp_path: Path) -> None:
    assert write_movie(str(tmp_path / name), (flat(n) for n in range(7)), rate=4) == 7
    frames = decoded(tmp_path / name)
    assert len(frames) == 7
    for number, frame in enumerate(frames):
        assert frame.shape == (*size, 3)
        difference = np.abs(frame[:, :91].astype(int) - flat(number)).max(2)
        assert np.median(difference) <= off
        assert np.mean(difference > off) < 0.05  # at the border of the colours
    with av.open(str(tmp_path / name)) as container:
        assert float(container.duration or 0) / av.time_base == pytest.approx(7 / 4, abs=0.1)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_one_frame_is_a_movie_too(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif"):
        assert write_movie(str(tmp_path / name), [flat(1)], rate=0.5) == 1
        assert len(decoded(tmp_path / name)) == 1


def test_a_movie_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def broken() -> list[Image]:
        raise UsageError("no more")

    (tmp_path / "a.mp4").write_bytes(b"before")

    def images() -> object:
        yield flat(0)
        broken()

    with pytest.raises(UsageError, match="no more"):
        write_movie(str(tmp_path / "a.mp4"), images(), rate=4)  # type: ignore[arg-type]
    assert (tmp_path / "a.mp4").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not end in \.png"):
        write_png(str(tmp_path / "a.jpg"), flat(0))
    with pytest.raises(UsageError, match=r"\.mp4 or \.gif"):
        write_movie(str(tmp_path / "a.avi"), [flat(0)], rate=4)
    for path in (tmp_path / "gone" / "a.png", tmp_path / "file" / "a.png"):
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot write"):
            write_png(str(path), flat(0))
    with pytest.raises(UsageError, match="cannot write"):
        write_movie(str(tmp_path / "gone" / "a.mp4"), [flat(0)], rate=4)


def test_a_sheet_has_its_pictures_in_reading_order() -> None:
    images = [np.full((30, 40, 3), 10 * n, np.uint8) for n in range(7)]
    cols = sheet_columns(7, 30, 40)
    assert cols in (3, 4)
    whole = sheet(images, 5)
    rows = -(-7 // cols)
    assert whole.shape == (rows * 30 + (rows + 1) * 5, cols * 40 + (cols + 1) * 5, 3)
    for number in range(rows * cols):
        top, left = 5 + number // cols * 35, 5 + number % cols * 45
        tile = whole[top : top + 30, left : left + 40]
        assert (tile == (10 * number if number < 7 else 255)).all()
        whole[top : top + 30, left : left + 40] = 255
    assert (whole == 255).all()


@pytest.mark.parametrize("text", ["frame 1", "threshold 0.5555: 1200 of 1960 tokens, 61 %", ""])
def test_labels_fit_their_bars(text: str) -> None:
    bar = label(text, 200, 20)
    assert bar.shape == (20, 200, 3)
    assert bool((bar < 128).any()) == bool(text)
    for side in (bar[:, :2], bar[:, -2:], bar[:1], bar[-1:]):
        assert (side == 255).all()


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pillow()
    monkeypatch.setitem(__import__("sys").modules, "PIL.ImageFont", None)
    with pytest.raises(UsageError, match="Pillow") as caught:
        check_pillow()
    assert caught.value.hint == "pip install 'dyntok[pictures]'"
