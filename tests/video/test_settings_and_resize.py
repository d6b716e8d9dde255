"""Sampling follows LLaVA's own lines of numpy; resizing follows PIL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dyntok.errors import ConfigError
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, resize_frame
from tests.support.clips import pictures
from tests.video.oracle import sequential

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@given(total=st.integers(1, 5000), frames=st.integers(1, 300))
def test_uniform_sampling_is_llavas(total: int, frames: int) -> None:
    sampling = Sampling(frames)
    chosen = sampling.choose(total, 25.0)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == np.linspace(0, total - 1, frames, dtype=int).tolist()
    assert sampling.count(total, 25.0) == len(chosen) == frames


@given(
    total=st.integers(1, 5000),
    source_fps=st.floats(0.1, 240),
    fps=st.floats(0.01, 500),
    most=st.none() | st.integers(1, 200),
)
def test_fps_sampling_is_llavas(total: int, source_fps: float, fps: float, most: int | None) -> None:
    step = max(1, round(source_fps / fps))
    wanted = list(range(0, total, step))
    if most is not None and len(wanted) > most:
        wanted = np.linspace(0, total - 1, most, dtype=int).tolist()
    sampling = Sampling(None, fps=fps, max_frames=most)
    assert sampling.choose(total, source_fps).tolist() == wanted
    assert sampling.count(total, source_fps) == len(wanted)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Sampling, {"frames": None}),
        (Sampling, {"frames": 8, "fps": 1.0}),
        (Sampling, {"frames": 0}),
        (Sampling, {"frames": None, "fps": 0.0}),
        (Sampling, {"frames": None, "fps": float("nan")}),
        (Sampling, {"frames": 8, "max_frames": 4}),
        (DecodeLimits, {"timeout_s": 0}),
        (DecodeLimits, {"max_pixels": -1}),
        (DecodeSettings, {"height": 0}),
        (DecodeSettings, {"width": 1 << 20}),
        (DecodeSettings, {"backend": "other"}),
        (DecodeSettings, {"resample": "nearest"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: type, values: dict[str, object]) -> None:
    base = {"sampling": Sampling(), "limits": DecodeLimits(), "height": 8, "width": 8}
    with pytest.raises(ConfigError):
        kind(**(base | values if kind is DecodeSettings else values))


@pytest.mark.parametrize("resample", FILTERS)
def test_resizing_equals_pil_on_real_frames(clip_folder: Path, resample: str) -> None:
    """To the sizes of vision towers: within one level, and nearly always the same."""
    for name in ("bikes.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4"):
        for _, image in sequential(clip_folder / name)[::60]:
            off = off_pil(image, 384, 384, resample)
            assert off.max() <= 1
            assert (off > 0).mean() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (67, 91), (384, 500), (720, 1280)])
def test_resizing_follows_pil_at_odd_sizes_and_hard_edges(size: tuple[int, int]) -> None:
    image = pictures(1, size[1], size[0])[0] if min(size) > 16 else np.full((*size, 3), 77, np.uint8)
    for resample in FILTERS:
        for height, width in ((384, 384), (378, 200), size):
            off = off_pil(image, height, width, resample)
            assert off.max() <= 2
            assert (off > 1).mean() < 1e-3


def off_pil(image: np.ndarray, height: int, width: int, resample: str) -> np.ndarray:
    ours = resize_frame(image, height, width, resample)  # type: ignore[arg-type]
    theirs = np.asarray(Image.fromarray(image).resize((width, height), FILTERS[resample]))
    assert ours.shape == (height, width, 3)
    assert ours.dtype == np.uint8
    return np.abs(ours.astype(int) - theirs)


@given(
    source=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    # torch cannot resize planes to a single pixel.
    target=st.tuples(st.integers(2, 50), st.integers(2, 50)),
    resample=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_interleaved_colours_are_resized_as_planes_are(
    source: tuple[int, int], target: tuple[int, int], resample: str, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*source, 3), np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
    expected = torch.nn.functional.interpolate(planes, target, mode=resample, antialias=True)
    ours = resize_frame(image, *target, resample)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours, expected[0].permute(1, 2, 0).numpy())


def test_a_resized_image_lies_in_order() -> None:
    """So that it is copied in one go."""
    assert resize_frame(pictures(1, 40, 30)[0], 21, 17).flags.c_contiguous
