"""The page: what is in it, that nothing in it can run or load, and how large it is."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dyntok
from dyntok.advice import advise_each
from dyntok.errors import DamageError, StoreError, UsageError
from dyntok.records import Grid
from dyntok.report import gather, page
from dyntok.report.markup import Markup, data_block, tag, visible
from dyntok.report.overlays import overlays
from dyntok.store import DatasetInfo, build_index, write_manifest
from dyntok.store.plan_rows import plan_rows
from tests.report.hostile import TEXTS, hostile_store
from tests.support.samples import complete_store, make_info, sharded_store
from tests.support.synthetic import synthetic_store


class Parsed(HTMLParser):
    """Elements, their attributes, and the text of the page."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(content)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        self._inside = name
        if name == "script":
            self.scripts.append("")

    def handle_endtag(self, name: str) -> None:
        self._inside = ""

    def handle_data(self, text: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += text
        elif self._inside != "style":
            self.texts.append(text)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("hostile") / "store"
    hostile_store(out)
    return out, page.report_html([gather(str(out), by="kind")], thumbnails=False)


def test_hostile_texts_are_shown_and_do_nothing(hostile: tuple[Path, str]) -> None:
    parsed = Parsed(hostile[1])
    scripts = [attributes for name, attributes in parsed.elements if name == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}, {}]
    for name, attributes in parsed.elements:
        assert name not in ("img", "iframe", "link", "object", "embed", "base", "svg", "a", "form"), name
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "href", "srcset")]
    assert [name for name, _ in parsed.elements].count("style") == 1
    shown = "\n".join(parsed.texts)
    for number, text in enumerate(TEXTS):
        assert visible(text) in shown, number
    assert "\u202e" not in shown and "\x1b" not in shown
    ids = {video["id"] for store in parsed.data["stores"] for video in store["overlays"]}
    assert ids <= set(TEXTS) and len(ids) == 6


def test_the_policy_allows_the_two_scripts_and_nothing_else(hostile: tuple[Path, str]) -> None:
    policy = next(a["content"] for n, a in Parsed(hostile[1]).elements if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; img-src data: blob:;")
    scripts = Parsed(hostile[1]).scripts[1:]
    assert [page._hash(script) in policy for script in scripts] == [True, True]
    assert "unsafe-eval" not in policy and "http" not in policy
    assert policy.split("script-src")[1].count("'") == 4


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<b>", Markup("<i>"), title='"><') == '<p title="&quot;&gt;&lt;">&lt;b&gt;<i></p>'
    block = data_block("x", {"a": "</script><!--&\u2028"})
    assert block.count("<") == 2 and "&" not in block and "\u2028" not in block
    assert json.loads(block.split(">", 1)[1].rsplit("<", 1)[0]) == {"a": "</script><!--&\u2028"}
    with pytest.raises(ValueError, match="JSON"):
        data_block("x", float("nan"))


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_overlays_are_the_stored_groups_at_every_threshold(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format, grid=Grid(4, 6), thresholds=(-0.25, 0.4, 0.4567, 0.6))
    sharded_store(str(tmp_path), [3, 2], info=info)
    found = gather(str(tmp_path))
    store = dyntok.open(tmp_path)
    edges = found.maps.shape.edges
    some = overlays(found)
    assert {overlay.example.id for overlay in some} == set(store.ids)
    for overlay in some:
        video = store[overlay.example.id]
        for threshold in info.thresholds:
            tokens = video.at(threshold=threshold)
            assert overlay.curve[edges.index(threshold)] == len(tokens)
            for shot in overlay.shots:
                begins = np.array(shot.bins) <= edges.index(threshold)
                sizes = np.diff(np.flatnonzero(begins), append=len(begins))
                low, high = (int(tokens.row_splits[4 * (shot.position + i)]) for i in (0, 1))
                assert sizes.tolist() == tokens.group_size[low:high].tolist()


def test_groups_that_contradict_the_map_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded_store(str(tmp_path), [1])
    found = gather(str(tmp_path))
    from dyntok.store.tar.reader import TarShardReader

    original = TarShardReader.groups

    def other(self: TarShardReader, row: int, level: int = 0) -> Any:
        groups = original(self, row, level)
        return replace(groups, group_size=groups.group_size[::-1])

    monkeypatch.setattr(TarShardReader, "groups", other)
    with pytest.raises(DamageError, match="contradict"):
        overlays(found)


def test_several_stores_side_by_side(tmp_path: Path) -> None:
    complete_store(str(tmp_path / "a"), make_info())
    complete_store(str(tmp_path / "b"), make_info(thresholds=(0.4321, 0.55), grid=Grid(2, 3)))
    found = [gather(str(tmp_path / name)) for name in "ab"]
    parsed = Parsed(page.report_html(found, thumbnails=False))
    data = parsed.data
    assert data["start"] == 0.55 and 0.4321 not in data["steps"]
    for store, statistics in zip(data["stores"], found, strict=True):
        edges = statistics.maps.shape.edges
        assert [edges[place] for place in store["places"]] == data["steps"]
        assert store["curve"] == statistics.maps.curve()
    ids = {attributes.get("id") for _, attributes in parsed.elements}
    assert {f"chart-{chart['id']}" for chart in data["charts"]} <= ids
    assert "grid *" in parsed.texts and "model: name" in parsed.texts


def test_what_fits_a_context_is_what_the_advice_says(tmp_path: Path) -> None:
    sharded_store(str(tmp_path), [3, 3], failed=("s0/v0.mp4",), frames=20)
    budgets = (40, 150, 400)
    parsed = Parsed(page.report_html([gather(str(tmp_path))], thumbnails=False, budgets=budgets))
    texts, shaded = parsed.texts, 0
    for advice in advise_each(dyntok.open(tmp_path), budgets):
        shares = [f"{100 * row.fits[name]:.1f} %" for row in advice.rows for name in advice.most_frames]
        most = [f"all {n}" if n == 20 else str(n) for n in advice.most_frames.values()]
        start = texts.index(f"{advice.budget:,} visual tokens")
        shown = texts[start : start + 40]
        shown = shown[: shown.index("most for 95 %") + 1 + len(most)]
        assert [text for text in shown if text.endswith(" %")][:-1] == shares
        assert shown[-len(most) :] == most
        fitting = sum(row.fits[name] >= advice.share for row in advice.rows for name in advice.most_frames)
        shaded += fitting
    assert [a.get("class") for n, a in parsed.elements if n == "td"].count("number fits") == shaded > 0
    usual = Parsed(page.report_html([gather(str(tmp_path))], thumbnails=False)).texts
    assert [text for text in usual if text.endswith("visual tokens")] == ["512 visual tokens"]


@pytest.mark.parametrize(
    ("frames", "budgets"),
    [(1, [512]), (25, [512, 1024, 2048, 4096]), (160, [2048, 4096, 8192, 16384])],
)
def test_contexts_are_those_that_the_longest_video_comes_near(frames: int, budgets: list[int], tmp_path: Path) -> None:
    sharded_store(str(tmp_path), [1], info=make_info(grid=Grid(14, 14)), frames=frames)
    texts = Parsed(page.report_html([gather(str(tmp_path))], thumbnails=False)).texts
    assert [text for text in texts if text.endswith("visual tokens")] == [f"{b:,} visual tokens" for b in budgets]


def test_without_videos_there_is_a_page(tmp_path: Path) -> None:
    sharded_store(str(tmp_path), [1], failed=("s0/v0.mp4",))
    assert "s0/v0.mp4" in page.report_html([gather(str(tmp_path))])


def test_sources_that_are_gone_leave_the_grid_alone(tmp_path: Path) -> None:
    complete_store(str(tmp_path), make_info())
    parsed = Parsed(page.report_html([gather(str(tmp_path))]))
    shots = [shot for video in parsed.data["stores"][0]["overlays"] for shot in video["shots"]]
    assert shots and {shot["image"] for shot in shots} == {""}


def test_without_plotly_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(str(tmp_path / "store"), make_info())
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="plotly") as caught:
        page.save_report([gather(str(tmp_path / "store"))], str(tmp_path / "r.html"))
    assert caught.value.hint == "pip install 'dyntok[report]'"
    assert not (tmp_path / "r.html").exists()


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    complete_store(str(tmp_path / "store"), make_info())
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        page.save_report([gather(str(tmp_path / "store"))], str(tmp_path / "taken/r.html"), thumbnails=False)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        page.save_report([gather(str(tmp_path / "store"))], str(tmp_path / "folder"), thumbnails=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "store", "taken"]


@pytest.mark.slow
def test_a_report_of_a_hundred_thousand_videos_is_small(tmp_path: Path) -> None:
    """All figures are those of the large store; videos to look at and their groups come from a small one."""
    root = synthetic_store(tmp_path / "many", shards=50, videos=2000, logs=False, statistics=True)
    build_index(root, plan_rows(root))
    write_manifest(root)
    many = gather(str(tmp_path / "many"))
    assert many.videos.totals.videos == 100_000
    info = replace(DatasetInfo.load(root), token_dim=8, feature_dim=6)
    sharded_store(str(tmp_path / "few"), [8], info=info, frames=32)
    few = gather(str(tmp_path / "few"))
    shown = replace(many.videos, least=few.videos.least, most=few.videos.most)
    mixed = replace(many, root=few.root, info=few.info, videos=shown)
    size = len(page.report_html([mixed]).encode())
    assert size < 10_000_000, size
    assert size - len(page.report_html([few]).encode()) < 100_000
