"""The tool that holds random access against a full decode tells right from wrong."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.video.compare_with_ffmpeg import compare, verdict
from tests.video.conftest import Clip
from tests.video.full_decode import FullDecode, by_program, by_pyav

TRUTH = FullDecode([0.0, 0.04, 0.08], ["a", "b", "c"], [False, False, False])


def said(**changes: Any) -> dict[str, Any]:
    equal = {"count": 3, "times": [0.0, 0.04, 0.08], "pictures": [[0, "a"], [2, "c"]], "refused": []}
    return {**equal, **changes}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "equal"),
        ({"times": [0.0, 0.05, 0.08]}, "times"),
        ({"pictures": [[0, "a"], [2, "b"]]}, "WRONG PICTURE"),
        ({"pictures": [[0, "b"]], "refused": [[2, "corrupt", "it cannot"]]}, "WRONG PICTURE"),
        ({"refused": [[-1, "corrupt", "it cannot"]], "count": 0, "times": [], "pictures": []}, "refused"),
        ({"refused": [[2, "corrupt", "it cannot"]]}, "refused"),
        ({"count": 2, "times": [0.0, 0.08], "pictures": [[0, "a"], [1, "c"]]}, "count"),
        ({"count": 2, "times": [0.0, 0.08], "pictures": [[0, "a"], [1, "b"]]}, "WRONG PICTURE"),
    ],
)
def test_each_kind_of_outcome_is_told(changes: dict[str, Any], outcome: str) -> None:
    assert verdict(TRUTH, said(**changes))[0] == outcome


def test_frames_that_the_decoder_marks_as_broken_may_be_left_out() -> None:
    truth = FullDecode([0.0, *TRUTH.times], ["x", *TRUTH.pictures], [True, *TRUTH.broken])
    assert verdict(truth, said())[0] == "equal"


def test_an_avi_may_count_its_times_from_the_first_frame() -> None:
    late = FullDecode([1.0, 1.04, 1.08], TRUTH.pictures, TRUTH.broken, about={"container": "avi"})
    assert verdict(late, said())[0] == "equal"
    assert verdict(late, said(times=[0.0, 0.02, 0.04]))[0] == "times"


@pytest.mark.parametrize("name", ["uneven.mp4", "cut.mp4", "broadcast.ts", "mpeg4.avi", "anim.gif"])
def test_a_clip_is_compared_frame_by_frame(clip: Clip, name: str) -> None:
    line = compare(clip(name))
    assert line["outcome"] == "equal", line
    assert line["compared"] == line["said"] == line["frames"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg program")
@pytest.mark.parametrize("name", ["uneven.mp4", "odd_size.webm", "hevc_10bit.mp4", "mpeg2.ts", "anim.gif"])
def test_planes_are_hashed_as_the_program_does(clip: Clip, name: str) -> None:
    ours = by_pyav(clip(name))
    assert by_program(clip(name), ours.stream, 60).pictures == ours.pictures
