"""`dyntok plan --budget`: of a store, and of inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dyntok
from tests.cli.conftest import Ran


@pytest.mark.parametrize("markers", ["row", "none"])
def test_advice_of_a_store_is_counted(markers: str, store: Path, cli: Callable[..., Ran]) -> None:
    opened = dyntok.open(store)
    longest = max(len(opened[i].select(0.4, markers=markers)) for i in opened.ids)  # type: ignore[arg-type]
    flags = ("--budget", longest, "--markers", markers)
    document = cli("plan", store, *flags, "--json").json
    advice = document["advice"]
    assert document["store"] == str(store)
    assert (advice["estimated"], advice["videos"], advice["stored_frames"]) == (False, 2, 3)
    assert advice["most_frames"]["0.40"] == 3
    for row in advice["rows"]:
        for name, length in row["length"].items():
            found = [
                len(opened[i].select(float(name), frames=row["frames"], markers=markers))  # type: ignore[arg-type]
                for i in opened.ids
            ]
            assert length == np.median(found)
            assert row["fits"][name] == np.mean(np.array(found) <= longest)
    ran = cli("plan", store, *flags)
    assert "3 frames, all that are stored" in ran.stdout
    assert "95 % of the videos" in ran.stdout
    assert "video.at(threshold=" in ran.hint


def test_advice_for_inputs_is_an_estimate_and_says_so(clip_folder: Path, cli: Callable[..., Ran]) -> None:
    command = ("plan", clip_folder / "bikes.mp4", "--model", "demo", "--budget", 8000)
    document = cli(*command, "--json").json
    assert document["videos"] == 1
    advice = document["advice"]
    assert advice["estimated"] is True
    assert advice["most_frames"]["0.50"] == int(8000 / (0.3 * 196 + 14))
    assert advice["rows"][0]["fits"]["0.50"] is None
    text = cli(*command).stdout
    assert "An estimate" in text
    assert "109" in text
    assert "44.4 %" in text
    none = cli(*command, "--markers", "none", "--json").json["advice"]
    assert none["most_frames"]["0.50"] == int(8000 / (0.3 * 196))


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--markers", "row"), "--markers is about a budget"),
        (("--budget", "100", "--out", "x"), "--out freezes a plan"),
        (("--budget", "100", "--model", "demo"), "the store has its settings already"),
        (("--budget", "0"), "budget"),
    ],
)
def test_flags_that_make_no_sense(flags: tuple[str, ...], error: str, store: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("plan", store, *flags)
    assert ran.code == 2
    assert error in ran.error


def test_a_budget_that_nothing_fits(store: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("plan", store, "--budget", 3)
    assert ran.code == 0
    assert "hint" not in ran.stderr
    assert set(cli("plan", store, "--budget", 3, "--json").json["advice"]["most_frames"].values()) == {0}
