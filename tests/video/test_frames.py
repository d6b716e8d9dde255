"""Every sampled frame is the frame of a full sequential decode, with its own time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dyntok.records import SourceRef
from dyntok.video import (
    DecodedVideo,
    DecodeLimits,
    DecodeSettings,
    Sampling,
    decode_frames,
    probe_video,
    pyav_frames,
)
from dyntok.video.container import OpenVideo
from dyntok.video.index import build_frame_index
from dyntok.video.picture import turn_of, turned
from dyntok.video.pyav_frames import FrameReader
from tests.support.clips import CLIPS, FRAMES, ONE, ORIENTATIONS, RATE, turn_camera
from tests.video.conftest import Clip, index_of
from tests.video.oracle import Image, sequential, to_rgb

REAL = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4")
SAMPLINGS = (
    Sampling(1),
    Sampling(5),
    Sampling(9),
    Sampling(200),
    Sampling(None, fps=3.0),
    Sampling(None, fps=1e4),
)
# What the frame index does with each container: the others are searched.
COUNTED = {"h264.avi", "mpeg4.avi", "mjpeg.avi", "mpeg2.mpg", "interlaced.ts"}
FORWARD = {"anim.gif", "vp8.ogg", "wmv2.wmv"}
# One group of pictures, so there is nowhere to jump to.
SHORT = {"one_gop.mp4", "one_frame.mp4", "two_streams.mp4", "odd_size.webm"}


def opened(path: Path, sampling: Sampling, **more: object) -> DecodedVideo:
    """At the size of the source, where resizing changes nothing."""
    _, info = probe_video(SourceRef(str(path)), Sampling(1))
    settings = DecodeSettings(sampling, DecodeLimits(), info.height, info.width, **more)  # type: ignore[arg-type]
    return decode_frames(SourceRef(str(path)), settings)


def turned_like(image: Image, name: str) -> Image:
    return np.rot90(image, -1) if name == "rotated.mp4" else image


@pytest.mark.parametrize("name", CLIPS)
def test_frames_and_times_are_those_of_a_sequential_decode(clip: Clip, name: str) -> None:
    truth = sequential(clip(name))
    for sampling in SAMPLINGS:
        with opened(clip(name), sampling) as video:
            positions = video.sampled.frame_index.tolist()
            assert video.info.frames_total == len(truth)
            assert positions == sampling.choose(len(truth), video.info.fps).tolist()
            times = [time for time, _ in truth]
            if sorted(set(times)) != times:
                assert name == "h264.avi"  # PyAV's invented times jump back and forth
                times = [number / RATE for number in range(len(truth))]
            assert video.sampled.frame_pts.tolist() == [times[p] for p in positions]
            count = 0
            for position, image in zip(positions, video.images(), strict=True):
                np.testing.assert_array_equal(image, turned_like(truth[position][1], name), f"frame {position}")
                count += 1
            assert count == len(positions)


@pytest.mark.parametrize("name", ["long_runs.mp4", "pyramid.mp4", "bframes.mp4"])
def test_frames_that_nothing_needs_are_not_decoded(clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the way to a wanted frame, nor behind it while the decoder holds it back."""
    last = len(index_of(clip(name))) - 1
    # Up to two went into the decoder at the first look.
    assert _needlessly_decoded(clip(name), [0, last // 3, last // 2, last], monkeypatch) <= 2


def test_skipping_ends_so_that_what_is_wanted_is_pushed_out(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nothing is referred to for long, the decoder is given frames before the wait is over."""
    monkeypatch.setattr(pyav_frames, "_SKIPPED_BEHIND", 5)
    assert _needlessly_decoded(clip("long_runs.mp4"), [34], monkeypatch) > 10


def _needlessly_decoded(path: Path, positions: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Frames that come out of the decoder for the wanted ones, though they are neither wanted nor referred to."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    needed = {packet.pts for packet in packets if not _is_unreferenced(packet)}
    decoded = set()
    take = FrameReader._take

    def taken(reader: FrameReader, frame: av.VideoFrame) -> None:
        decoded.add(frame.pts)
        take(reader, frame)

    monkeypatch.setattr(FrameReader, "_take", taken)
    with OpenVideo(SourceRef(str(path)), None, DecodeLimits()) as video:
        reader = FrameReader(video, build_frame_index(video))
        reader.look()
        looked_at = set(decoded)
        wanted = {frame.pts for frame in reader.frames(positions)}
    assert wanted <= decoded
    return len(decoded - needed - wanted - looked_at)


def _is_unreferenced(packet: av.Packet) -> bool:
    """Whether the slices of an H.264 packet of an MP4 say that nothing refers to them."""
    data, position = bytes(packet), 0
    while position < len(data):
        if data[position + 4] & 31 in (1, 5):
            return not data[position + 4] & 0x60
        position += 4 + int.from_bytes(data[position : position + 4], "big")
    raise AssertionError("a packet without a slice")


@pytest.mark.parametrize("name", sorted(set(CLIPS) - COUNTED))
def test_each_frame_by_itself(clip: Clip, name: str) -> None:
    """Jumping straight to a frame gives what decoding up to it gives, and jumps do happen."""
    truth = sequential(clip(name))
    ref = SourceRef(str(clip(name)))
    jumps = 0
    for position in range(0, len(truth), 7):
        with OpenVideo(ref, None, DecodeLimits()) as video:
            reader = FrameReader(video, build_frame_index(video))
            turn = turn_of(reader.look(), name)
            (frame,) = reader.frames([position])
            jumps += reader._began > 0
            np.testing.assert_array_equal(turned(to_rgb(frame), turn), turned(truth[position][1], turn))
    assert (jumps > 0) == (name not in FORWARD | SHORT)


@pytest.mark.parametrize("name", CLIPS)
def test_how_each_clip_is_accessed(clip: Clip, name: str) -> None:
    index = index_of(clip(name))
    assert index.access == ("count" if name in COUNTED else "forward" if name in FORWARD else "seek")


def test_frames_that_are_not_presented_are_not_counted(clip: Clip) -> None:
    index = index_of(clip("cut.mp4"))
    assert index.discarded == 100 - len(index) > 20
    assert index.pts_seconds(np.arange(1))[0] == 0.0


def test_hidden_reference_frames_are_not_counted(clip: Clip) -> None:
    index = index_of(clip("vp8_hidden.webm"))
    assert (len(index.packet_pts), len(index), index.access) == (FRAMES, FRAMES - 6, "seek")


def test_rates_and_durations(clip: Clip) -> None:
    even = index_of(clip("bframes.mp4"))
    assert (even.fps, even.seconds) == (RATE, FRAMES / RATE)
    uneven = index_of(clip("uneven.mkv"))
    first, last = uneven.pts_seconds(np.array([0, FRAMES - 1]))
    assert uneven.fps == pytest.approx((FRAMES - 1) / (last - first))
    assert uneven.seconds > last - first
    single = index_of(clip("one_frame.mp4"))
    assert (single.fps, single.seconds) == (RATE, 1 / RATE)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_pictures_are_turned_upright(clip: Clip, tmp_path: Path, name: str) -> None:
    """The matrix says where a decoded pixel goes; so where a pixel comes from is worked out from it one by one."""
    path = tmp_path / "turned.mp4"
    path.write_bytes(clip("one_frame.mp4").read_bytes())
    matrix = ORIENTATIONS[name]
    turn_camera(path, matrix)
    ((_, source),) = sequential(path)
    with opened(path, Sampling(1)) as video:
        (image,) = video.images()
        assert (video.info.width, video.info.height) == image.shape[1::-1]
        assert (video.info.rotation_degrees in (90, 270)) == (matrix[0] == 0)
    np.testing.assert_array_equal(image, moved_by(source, matrix))


def moved_by(source: Image, matrix: tuple[int, int, int, int]) -> Image:
    """(x, y) of the decoded picture is shown at (a x + c y, b x + d y), moved to begin at zero (ISO 14496-12)."""
    a, b, c, d = (value // ONE for value in matrix)
    height, width = source.shape[:2]
    shape = (height, width) if a else (width, height)
    result = np.zeros((*shape, 3), np.uint8)
    xs, ys = (a + c < 0) * (shape[1] - 1), (b + d < 0) * (shape[0] - 1)
    for y in range(height):
        for x in range(width):
            result[b * x + d * y + ys, a * x + c * y + xs] = source[y, x]
    return result


@pytest.mark.parametrize("name", REAL)
def test_real_clips(clip_folder: Path, name: str) -> None:
    truth = sequential(clip_folder / name)
    for frames in (6, 64):
        with opened(clip_folder / name, Sampling(frames)) as video:
            assert video.info.frames_total == len(truth)
            sampled = zip(video.sampled.frame_index, video.sampled.frame_pts, video.images(), strict=True)
            for position, time, image in sampled:
                assert time == truth[position][0]
                np.testing.assert_array_equal(image, truth[position][1])
