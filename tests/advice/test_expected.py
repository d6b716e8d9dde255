"""Estimates are the paper's ratios and arithmetic."""

from __future__ import annotations

import pytest

from dyntok.advice import expect
from dyntok.records import Grid

RATIOS = {0.4: 0.2, 0.5: 0.3, 0.6: 0.444}


@pytest.mark.parametrize(
    ("markers", "once", "each"), [("row", 0, 14), ("frame", 0, 1), ("video", 1, 0), ("none", 0, 0)]
)
@pytest.mark.parametrize("budget", [5, 100, 8192, 100_000])
def test_lengths_follow_from_the_published_ratios(budget: int, markers: str, once: int, each: int) -> None:
    advice = expect(budget, Grid(14, 14), tuple(RATIOS), markers)  # type: ignore[arg-type]
    assert advice.estimated
    for threshold, ratio in RATIOS.items():
        name = f"{threshold:.2f}"
        for row in advice.rows:
            assert row.length[name] == pytest.approx(row.frames * (196 * ratio + each) + once, abs=0.06)
            assert row.fits[name] is None
        most = advice.most_frames[name]
        assert most == 0 or most * (196 * ratio + each) + once <= budget
        assert (most + 1) * (196 * ratio + each) + once > budget
    assert [row.frames for row in advice.rows] == [8 * 2**i for i in range(len(advice.rows))]
    assert min(advice.rows[-1].length.values()) > budget
    assert all(min(row.length.values()) <= budget for row in advice.rows[:-1])
