"""The page in a real browser: it draws, it reacts, it asks for nothing, and it shows what is stored."""

from __future__ import annotations

import base64
import colorsys
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dyntok
from dyntok.report import StoreStatistics, gather
from dyntok.report.page import save_report
from tests.report.hostile import hostile_store
from tests.support.browser import CHROMIUM, Browser
from tests.support.samples import make_info, sharded_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.timeout(300),
]
CELL, LINE = 24, 2
MOVE = """
(async (value) => {
  const slider = document.getElementById("threshold");
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
})(%d)
"""
PIXELS = """
[...document.querySelectorAll("canvas")].map((canvas) => {
  const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return [canvas.width, canvas.height, btoa(text)];
})
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreStatistics, Path]:
    out = tmp_path_factory.mktemp("browser")
    info = make_info(thresholds=(0.4, 0.45, 0.5, 0.55, 0.6))
    sharded_store(str(out / "store"), [4, 4], info=info, failed=("s0/v1.mp4",), frames=9)
    found = gather(str(out / "store"))
    save_report([found], str(out / "report.html"))
    return found, out / "report.html"


@pytest.fixture(scope="module")
def page(report: tuple[StoreStatistics, Path]) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(report[1])
        yield browser


def text(page: Browser, name: str) -> str:
    found: str = page.run(f"document.getElementById({json.dumps(name)}).textContent")
    return found


def data(page: Browser) -> Any:
    return page.run("JSON.parse(document.getElementById('data').textContent)")


def test_every_chart_is_drawn_and_nothing_is_asked_for(page: Browser) -> None:
    charts = data(page)["charts"]
    assert len(charts) == 7
    for chart in charts:
        drawn = f"document.querySelectorAll('#chart-{chart['id']} .scatterlayer .trace').length"
        assert page.run(drawn) == len(chart["traces"]), chart["id"]
    assert page.problems == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "data"}
    assert [url for url in page.requests if url.startswith("file")] == page.requests[:1]


def test_the_slider_moves_the_numbers(report: tuple[StoreStatistics, Path], page: Browser) -> None:
    maps = report[0].maps
    steps = data(page)["steps"]
    seen = set()
    for threshold in (0.0, 0.4, 0.505, 0.6, 1.0):
        page.run(MOVE % steps.index(threshold))
        tokens = maps.tokens(threshold)
        assert text(page, "now-tokens-0") == f"{tokens:,}"
        assert text(page, "now-kept-0") == f"{100 * tokens / maps.patches:.1f} %"
        assert float(text(page, "threshold-value")) == threshold
        assert ("Above the stored" in text(page, "threshold-note")) == (threshold > 0.6)
        seen.add(text(page, "now-kept-0"))
        lines = page.run("[...document.querySelectorAll('.overlay p')].map((p) => p.textContent)")
        place = maps.shape.edges.index(threshold)
        for line, video in zip(lines, data(page)["stores"][0]["overlays"], strict=True):
            assert f" {video['curve'][place]:,} tokens" in line
    assert len(seen) == 5
    assert page.problems == []


def expected_pixels(group_size: list[int], rows: int, cols: int) -> np.ndarray:
    """A frame's groups as the page draws them, from the stored group sizes alone."""
    image = np.zeros((rows * CELL, cols * CELL, 4), np.uint8)
    patch = 0
    for size in group_size:
        y, x = patch // cols * CELL, patch % cols * CELL
        # As JavaScript rounds: halves up.
        light = 92 - int(52 * (size - 1) / (cols - 1) + 0.5)
        colour = [round(255 * c) for c in colorsys.hls_to_rgb(215 / 360, light / 100, 0.6)]
        image[y : y + CELL, x : x + size * CELL] = [*colour, 255]
        image[y : y + CELL, x : x + LINE] = image[y : y + LINE, x : x + size * CELL] = [16, 24, 32, 255]
        patch += size
    return image


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_overlays_are_the_stored_groups_pixel_by_pixel(
    report: tuple[StoreStatistics, Path], page: Browser, threshold: float
) -> None:
    found = report[0]
    grid, store = found.info.grid, dyntok.open(found.root.url)
    content = data(page)
    page.run(MOVE % content["steps"].index(threshold))
    canvases = iter(page.run(PIXELS))
    looked_at = 0
    for video in content["stores"][0]["overlays"]:
        tokens = store[video["id"]].at(threshold=threshold)
        for shot in video["shots"]:
            width, height, encoded = next(canvases)
            pixels = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(height, width, 4)
            low, high = (int(tokens.row_splits[grid.rows * (shot["frame"] + i)]) for i in (0, 1))
            expected = expected_pixels(tokens.group_size[low:high].tolist(), grid.rows, grid.cols)
            assert np.abs(pixels.astype(int) - expected).max() <= 1
            looked_at += 1
    assert next(canvases, None) is None and looked_at == 7 * 3


def test_light_and_dark(page: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#chart-curve .xtick text')).fill"
    before = page.run(background), page.run(ink)
    page.run("document.getElementById('theme').click()")
    time.sleep(0.5)
    after = page.run(background), page.run(ink)
    assert before[0] != after[0] and before[1] != after[1]
    page.run("document.getElementById('theme').click()")
    time.sleep(0.5)
    assert (page.run(background), page.run(ink)) == before


def test_a_phone_that_prefers_dark(report: tuple[StoreStatistics, Path]) -> None:
    with Browser(390, 844, dark=True) as phone:
        phone.open(report[1])
        assert phone.run("document.documentElement.scrollWidth") <= 390
        assert phone.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
        widths = phone.run("[...document.querySelectorAll('.chart .main-svg')].map((e) => e.clientWidth)")
        assert widths and max(widths) <= 390
        assert phone.problems == []


def test_hostile_texts_do_not_run(tmp_path: Path) -> None:
    hostile_store(tmp_path / "store")
    save_report([gather(str(tmp_path / "store"), by="kind")], str(tmp_path / "r.html"))
    with Browser() as browser:
        browser.open(tmp_path / "r.html")
        assert browser.run("window.hacked") is None
        assert browser.run("document.querySelectorAll('.overlay').length") == 6
        assert browser.run("document.querySelectorAll('script').length") == 3
        assert browser.problems == []
        # What was written into the page all the same could not run.
        browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=1\">')")
        time.sleep(0.5)
        assert browser.run("window.hacked") is None
        assert sum("Content Security Policy" in problem for problem in browser.problems) >= 2
