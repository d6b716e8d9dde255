"""A frame that rests on a damaged one is corrupt, though the decoder hands it out without a word."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dyntok.errors import VideoError
from dyntok.records import SourceRef
from dyntok.video import DecodedVideo, DecodeLimits, DecodeSettings, Sampling

FIRST_KEY, DAMAGED, NEXT_KEY, END = 30, 34, 76, 137


@pytest.fixture
def damaged(bikes: Path, tmp_path: Path) -> Path:
    """A reference picture of the second group of pictures has its second half zeroed."""
    with av.open(str(bikes)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        assert [n for n in (FIRST_KEY, NEXT_KEY, END) if packets[n].is_keyframe] == [FIRST_KEY, NEXT_KEY, END]
        position, size = packets[DAMAGED].pos, packets[DAMAGED].size
    data = bytearray(bikes.read_bytes())
    data[position + size // 2 : position + size] = bytes(size - size // 2)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    return path


def frame_of(path: Path, start: int) -> np.ndarray:
    """Frame `start`, decoded without asking for any before it."""
    settings = DecodeSettings(Sampling(frames=250), DecodeLimits(), 272, 640)
    with DecodedVideo(SourceRef(str(path)), settings) as video:
        return next(video.images(start))


@pytest.mark.parametrize("position", [40, 45, 75])
def test_frames_after_the_damage_in_its_group_are_corrupt(damaged: Path, position: int) -> None:
    with pytest.raises(VideoError, match=f"frame {position} ") as caught:
        frame_of(damaged, position)
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize("position", [0, 29, 30, 76, 100, 249])
def test_frames_of_other_groups_are_exact(damaged: Path, bikes: Path, position: int) -> None:
    np.testing.assert_array_equal(frame_of(damaged, position), frame_of(bikes, position))
