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
@pytest.mark.timeout(1500)
def test_three_hours_take_the_memory_of_one_minute(carphone: Path, tmp_path: Path) -> None:
    peaks = {}
    for name, seconds in (("minute", 60), ("hours", 3 * 3600 + 20)):
        video = tmp_path / f"{name}.mp4"
        loop_clip(carphone, video, seconds, slower=3)
        arguments = ["encode", video, "--out", tmp_path / name, "--model", "demo", "--fps", "1"]
        flags = [
            "--thresholds",
            "1.0",
            "--dtype",
            "float32",
            "--decode-workers",
            "1",
            "--decode-timeout-s",
            "1200",
        ]
        peaks[name], result = peak_tree_bytes(command(*arguments, *flags), environment())
        assert result.returncode == 0, result.stdout
    frames = dyntok.open(tmp_path / "hours")["hours.mp4"].frame_count
    print(f"peak: {peaks['minute'] / 2**20:.0f} MiB for a minute, {peaks['hours'] / 2**20:.0f} MiB for {frames} frames")
    assert frames >= 10_800
    assert verify(str(tmp_path / "hours")).ok
    assert peaks["hours"] < 1.2 * peaks["minute"]
