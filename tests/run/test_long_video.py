"""A sample may be larger than memory: a run's peak does not grow with the length of a video."""

from __future__ import annotations

from pathlib import Path

import pytest

import dyntok
from dyntok.store import verify
from tests.support.looping import loop_clip
from tests.support.memory import peak_tree_bytes
from tests.support.runs import command, environment


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ninety_minutes_take_the_memory_of_one(carphone: Path, tmp_path: Path) -> None:
    peaks = {}
    for name, seconds in (("minute", 60), ("film", 90 * 60 + 20)):
        video = tmp_path / f"{name}.mp4"
        loop_clip(carphone, video, seconds)
        arguments = ["encode", video, "--out", tmp_path / name, "--model", "demo", "--fps", "1"]
        flags = [
            "--thresholds",
            "1.0",
            "--dtype",
            "float32",
            "--decode-workers",
            "1",
            "--decode-timeout-s",
            "600",
        ]
        peaks[name], result = peak_tree_bytes(command(*arguments, *flags), environment())
        assert result.returncode == 0, result.stdout
    frames = dyntok.open(tmp_path / "film")["film.mp4"].frame_count
    print(f"peak: {peaks['minute'] / 2**20:.0f} MiB for a minute, {peaks['film'] / 2**20:.0f} MiB for {frames} frames")
    assert frames >= 90 * 60
    assert verify(str(tmp_path / "film")).ok
    assert peaks["film"] < 1.2 * peaks["minute"]
