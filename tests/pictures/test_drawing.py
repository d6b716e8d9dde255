"""Overlays against the groups of the operator, pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dyntok.merging import VideoTokens, merge
from dyntok.pictures.drawing import (
    BORDER,
    GREY,
    GREY_SHARE,
    HEAT_SHARE,
    NO_NEIGHBOUR,
    SHADOW,
    border_pixels,
    draw_groups,
    heat_colours,
    similarity_map,
)
from dyntok.pictures.layout import GridLayout
from dyntok.records import Grid

ROWS, COLS, HEIGHT, WIDTH = 4, 6, 11, 9
Image = npt.NDArray[np.uint8]


@pytest.fixture
def image() -> Image:
    """Random colours; one pixel row and column more than the patches take."""
    shape = (ROWS * HEIGHT + 1, COLS * WIDTH + 1, 3)
    return np.random.default_rng(3).integers(0, 255, shape, np.uint8)


@pytest.fixture
def layout(image: Image) -> GridLayout:
    height, width = image.shape[:2]
    covered = (ROWS * HEIGHT / height, COLS * WIDTH / width)
    return GridLayout.over(height, width, Grid(ROWS, COLS), covered)


def tokens_at(threshold: float) -> VideoTokens:
    features = torch.randn(1, ROWS, COLS, 3, generator=torch.Generator().manual_seed(1))
    return merge(features, features, threshold)


def expected(image: Image, video: VideoTokens) -> Image:
    """By loops over the stored groups, which know nothing of the similarity map."""
    drawn = image.copy()
    starts: list[tuple[int, int]] = []
    for row in range(ROWS):
        col = 0
        for token in range(int(video.row_splits[row]), int(video.row_splits[row + 1])):
            starts.append((row, col))
            for member in range(1, int(video.group_size[token])):
                for y in range(row * HEIGHT, (row + 1) * HEIGHT):
                    for x in range((col + member) * WIDTH, (col + member + 1) * WIDTH):
                        mixed = (1 - GREY_SHARE) * image[y, x].astype(float) + GREY_SHARE * GREY
                        drawn[y, x] = np.rint(mixed)
            col += int(video.group_size[token])
        assert col == COLS
    for row, col in starts:
        drawn[row * HEIGHT : (row + 1) * HEIGHT, col * WIDTH] = BORDER
        drawn[row * HEIGHT, : COLS * WIDTH] = BORDER
    drawn[ROWS * HEIGHT, : COLS * WIDTH] = BORDER
    drawn[: ROWS * HEIGHT, COLS * WIDTH] = BORDER
    white = {(y, x) for y, x in np.ndindex(*image.shape[:2]) if tuple(drawn[y, x]) == BORDER}
    for y, x in np.ndindex(*image.shape[:2]):
        if (y, x) not in white and ((y - 1, x) in white or (y, x - 1) in white):
            drawn[y, x] = np.rint(drawn[y, x] * SHADOW)
    return drawn


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.3, 0.5, 0.9, 1.0])
def test_an_overlay_is_that_of_the_groups(image: Image, layout: GridLayout, threshold: float) -> None:
    video = tokens_at(threshold)
    similarity = video.similarity[0].numpy()
    before = image.copy()
    drawn = draw_groups(image, similarity, threshold, layout)
    assert np.array_equal(drawn, expected(image, video))
    assert np.array_equal(image, before)


def test_borders_grow_with_the_picture_and_stay_inside() -> None:
    begins = np.ones((2, 2), np.bool_)
    layout = GridLayout.over(200, 200, Grid(2, 2))
    lines = border_pixels(begins, layout)
    assert lines.shape == (200, 200)
    # Four pixels thick: around 0, 100 and 200.
    assert np.flatnonzero(lines[50]).tolist() == [0, 1, 2, 3, 98, 99, 100, 101, 196, 197, 198, 199]
    begins[:, 1] = False
    assert np.flatnonzero(border_pixels(begins, layout)[50]).tolist() == [0, 1, 2, 3, 196, 197, 198, 199]


def test_a_similarity_map_colours_each_patch(image: Image, layout: GridLayout) -> None:
    similarity = tokens_at(0.5).similarity[0].numpy()
    drawn = similarity_map(image, similarity, layout)
    for row in range(ROWS):
        for col in range(COLS):
            colour = np.array(NO_NEIGHBOUR) if col == 0 else heat_colours(similarity[row, col])
            for y, x in ((row * HEIGHT, col * WIDTH), ((row + 1) * HEIGHT - 1, (col + 1) * WIDTH - 1)):
                luma = float(image[y, x] @ np.array([0.299, 0.587, 0.114]))
                assert np.abs(drawn[y, x] - (HEAT_SHARE * colour + (1 - HEAT_SHARE) * luma)).max() <= 0.51
    assert np.array_equal(drawn[-1], image[-1])
    assert np.array_equal(drawn[:, -1], image[:, -1])


def test_colours_rise_in_brightness() -> None:
    bright = heat_colours(np.linspace(0, 1, 50, dtype=np.float32)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(bright) > 0).all()
    clamped = heat_colours(np.array([-1.0, 0.0, 1.0, 2.0], np.float32))
    assert np.array_equal(clamped[0], clamped[1])
    assert np.array_equal(clamped[2], clamped[3])
