"""The grid lies where the model saw its patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyntok.pictures.layout import GridLayout, covered_share
from dyntok.records import Grid
from dyntok.video import resize_frame
from dyntok.vision import load_encoder


def test_edges_are_spread_evenly_over_what_is_covered() -> None:
    layout = GridLayout.over(384, 768, Grid(14, 14), (378 / 384, 378 / 384))
    assert layout.row_edges.tolist() == [27 * i for i in range(15)]
    assert layout.col_edges.tolist() == [54 * i for i in range(15)]
    assert layout.row_of[[0, 26, 27, 377, 378, 383]].tolist() == [0, 0, 1, 13, -1, -1]


@pytest.mark.parametrize("size", [(100, 37), (14, 14), (271, 640)])
def test_every_pixel_inside_has_one_patch(size: tuple[int, int]) -> None:
    layout = GridLayout.over(*size, Grid(14, 14))
    for owners, length in ((layout.row_of, size[0]), (layout.col_of, size[1])):
        assert len(owners) == length
        assert (np.diff(owners) >= 0).all()
        assert set(owners.tolist()) == set(range(14))


def test_values_are_spread_over_their_pixels() -> None:
    layout = GridLayout.over(20, 30, Grid(2, 3), (0.8, 1.0))
    values = np.arange(6).reshape(2, 3)
    spread = layout.spread(values, -5)
    for y in range(20):
        for x in range(30):
            assert spread[y, x] == (values[y // 8, x // 10] if y < 16 else -5)


@pytest.mark.parametrize(
    ("model", "share"),
    [
        ({"height": 384, "width": 384, "encoder_rows": 27, "encoder_cols": 27}, 378 / 384),
        ({"height": 378, "width": 378, "encoder_rows": 27, "encoder_cols": 27}, 1.0),
        ({"height": 224, "width": 224, "encoder_rows": 14, "encoder_cols": 14}, 1.0),
        ({}, 1.0),
        ({"height": "384", "width": None, "encoder_rows": 0, "encoder_cols": 27}, 1.0),
    ],
)
def test_the_covered_share_follows_from_the_models_size(model: dict[str, object], share: float) -> None:
    assert covered_share(model) == (share, share)


@pytest.mark.parametrize("place", [(0, 0), (13, 13), (5, 9), (12, 1)])
def test_what_changes_under_a_patch_changes_that_patch(place: tuple[int, int]) -> None:
    """A texture in the middle of one patch of a wide frame moves that patch's feature the most."""
    encoder = load_encoder("demo", device="cpu")
    layout = GridLayout.over(272, 640, encoder.spec.grid, covered_share(encoder.spec.to_json()))
    row, col = place
    rows = slice(int(layout.row_edges[row]) + 3, int(layout.row_edges[row + 1]) - 3)
    cols = slice(int(layout.col_edges[col]) + 6, int(layout.col_edges[col + 1]) - 6)
    plain = np.full((272, 640, 3), 90, np.uint8)
    marked = plain.copy()
    marked[rows, cols] = np.random.default_rng(0).integers(0, 256, marked[rows, cols].shape)
    frames = torch.stack([torch.from_numpy(resize_frame(image, 384, 384).copy()) for image in (plain, marked)])
    features = encoder.encode(frames).features
    moved = (features[1] - features[0]).norm(dim=-1)
    assert divmod(int(moved.argmax()), 14) == place
