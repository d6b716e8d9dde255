"""Pictures of stored videos: from real clips, odd ones, and without their source."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dyntok
from dyntok.errors import UsageError, VideoError
from dyntok.load import Store
from dyntok.pictures import SourceVideo, VideoPictures, Views, draw_groups
from dyntok.pictures.drawing import PAPER, similarity_map
from dyntok.pictures.layout import GridLayout, covered_share
from dyntok.pictures.sources import plan_entry
from dyntok.run import encode
from dyntok.video import resize_frame
from tests.support.clips import make_clip
from tests.support.runs import demo_config
from tests.video.oracle import sequential

ODD = ("rotated.mp4", "one_frame.mp4", "mpeg4.avi", "cut.mp4", "odd_size.webm")
SIDE, GAP, BAR = 280, 4, 15


@pytest.fixture(scope="module")
def folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "in").mkdir()
    shutil.copy(clip_folder / "bikes.mp4", folder / "in")
    for name in ODD:
        shutil.copy(make_clip(name, folder / "made"), folder / "in")
    encode([str(folder / "in")], str(folder / "out"), demo_config(frames=5))
    return folder


@pytest.fixture
def store(folder: Path) -> Store:
    return dyntok.open(folder / "out")


def source_of(store: Store, video_id: str, path: Path | None = None) -> SourceVideo:
    return SourceVideo.of(store, video_id, store[video_id].head.frames, None if path is None else str(path))


@pytest.mark.parametrize("name", ["bikes.mp4", *ODD])
def test_the_stored_frames_are_decoded_again(name: str, folder: Path, store: Store) -> None:
    head = store[name].head
    images = list(source_of(store, name).images(range(5)))
    assert len(images) == 5
    every = sequential(folder / "in" / name)
    for image, number in zip(images, head.frames.frame_index.tolist(), strict=True):
        right = every[number][1]
        assert right is not None
        assert np.array_equal(image, np.rot90(right, -1) if name == "rotated.mp4" else right)


def test_some_frames_are_those_of_all(store: Store) -> None:
    source = source_of(store, "bikes.mp4")
    every = list(source.images(range(5)))
    some = list(source.images([1, 4]))
    assert np.array_equal(some[0], every[1])
    assert np.array_equal(some[1], every[4])
    assert (source.height, source.width) == every[0].shape[:2] == (272, 640)


def layout_of(store: Store, height: int, width: int) -> GridLayout:
    return GridLayout.over(height, width, store.info.grid, covered_share(store.info.model))


def test_a_picture_is_the_views_side_by_side(store: Store) -> None:
    source = source_of(store, "bikes.mp4")
    views = Views((0.4, 0.6), similarity=True, side=SIDE)
    drawn = VideoPictures(store, "bikes.mp4", views, source).frame(3)
    height, width = 119, SIDE
    assert drawn.shape == (2 * BAR + height + 2 * GAP, 4 * width + 5 * GAP, 3)
    frame = resize_frame(next(source.images([3])), height, width)
    layout = layout_of(store, height, width)
    similarity = store["bikes.mp4"].head.similarity[3]
    panels = [
        frame,
        draw_groups(frame, similarity, 0.4, layout),
        draw_groups(frame, similarity, 0.6, layout),
        similarity_map(frame, similarity, layout),
    ]
    for number, panel in enumerate(panels):
        left, top = GAP + number * (width + GAP), GAP + BAR
        assert np.array_equal(drawn[top : top + height, left : left + width], panel)


def test_without_a_source_the_grid_is_drawn_at_the_frames_own_shape(store: Store) -> None:
    for name, size in (("bikes.mp4", (119, SIDE)), ("rotated.mp4", (SIDE, 187))):
        drawn = VideoPictures(store, name, Views((0.5,), side=SIDE)).frame(0)
        assert drawn.shape == (2 * BAR + size[0] + 2 * GAP, size[1] + 2 * GAP, 3)
        blank = np.empty((*size, 3), np.uint8)
        blank[:] = PAPER
        panel = draw_groups(blank, store[name].head.similarity[0], 0.5, layout_of(store, *size))
        assert np.array_equal(drawn[GAP + BAR : -GAP - BAR, GAP:-GAP], panel)
        assert tuple(panel[-1, -1]) == PAPER


def test_a_sheet_and_a_clip_have_every_frame(store: Store) -> None:
    pictures = VideoPictures(store, "bikes.mp4", Views((0.5,), side=SIDE), source_of(store, "bikes.mp4"))
    strips = list(pictures.clip())
    assert len(strips) == 5
    assert {strip.shape for strip in strips} == {(2 * BAR + 119, 2 * SIDE + GAP, 3)}
    assert np.array_equal(pictures.frame(2)[GAP:-GAP, GAP:-GAP], strips[2])
    for most, shown in ((12, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (1, [0])):
        whole = pictures.sheet(most)
        height, width = strips[0].shape[:2]
        cols = (whole.shape[1] - 2 * GAP) // (width + 2 * GAP)
        for number, position in enumerate(shown):
            top = 2 * GAP + number // cols * (height + 2 * GAP)
            left = 2 * GAP + number % cols * (width + 2 * GAP)
            assert np.array_equal(whole[top : top + height, left : left + width], strips[position])


def test_the_nearest_frame_of_a_time(store: Store) -> None:
    pictures = VideoPictures(store, "bikes.mp4", Views((0.5,)))
    times = store["bikes.mp4"].head.frames.frame_pts
    for seconds in (-3.0, 0.0, 2.4, 7.1, 1e6):
        assert pictures.nearest(seconds) == int(np.argmin(np.abs(times - seconds)))


def test_what_cannot_be_drawn_is_refused(store: Store) -> None:
    pictures = VideoPictures(store, "bikes.mp4", Views((0.5,)))
    for position in (-1, 5):
        with pytest.raises(UsageError, match="frames 0 to 4"):
            pictures.frame(position)
    with pytest.raises(UsageError, match="at least one frame"):
        pictures.sheet(0)
    for thresholds, side in (((), 100), ((float("nan"),), 100), ((0.5,), 10), ((0.5,), 10**6)):
        with pytest.raises(UsageError):
            Views(thresholds, side=side)


def test_a_changed_source_is_refused(folder: Path, store: Store, tmp_path: Path) -> None:
    original = folder / "in" / "bikes.mp4"
    assert source_of(store, "bikes.mp4", Path(shutil.copy(original, tmp_path / "copy.mp4"))).height == 272
    longer, flipped = tmp_path / "longer.mp4", tmp_path / "flipped.mp4"
    longer.write_bytes(original.read_bytes() + b"\0")
    data = bytearray(original.read_bytes())
    data[1000] ^= 1
    flipped.write_bytes(data)
    for path in (longer, flipped, folder / "in" / "cut.mp4"):
        with pytest.raises(VideoError, match="not the file that was encoded") as caught:
            source_of(store, "bikes.mp4", path)
        assert caught.value.code == "changed"
        assert "--no-source" in str(caught.value.hint)
    with pytest.raises(VideoError) as gone:
        source_of(store, "bikes.mp4", tmp_path / "nothing.mp4")
    assert gone.value.code == "not_found"


def test_a_source_that_presents_other_frames_is_refused(store: Store) -> None:
    entry, frames = plan_entry(store, "bikes.mp4"), store["bikes.mp4"].head.frames
    with pytest.raises(VideoError, match="does not present the frames"):
        SourceVideo(entry.ref, "bikes.mp4", {**store.info.config, "frames": 6}, frames)
    with pytest.raises(VideoError, match="how frames were sampled"):
        SourceVideo(entry.ref, "bikes.mp4", {}, frames)


def test_a_retried_video_is_found_where_it_was_encoded(clip_folder: Path, tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    shutil.copy(clip_folder / "carphone_pristine.mp4", inputs / "a.mp4")
    (inputs / "b.mp4").write_text("no video")
    encode([str(inputs)], str(out), demo_config(frames=2))
    shutil.copy(clip_folder / "carphone_distorted.mp4", inputs / "b.mp4")
    encode([str(inputs)], str(out), demo_config(frames=2), retry_failed=True)
    store = dyntok.open(out)
    assert plan_entry(store, "b.mp4").attempt == 2
    assert len(list(source_of(store, "b.mp4").images([0, 1]))) == 2
