"""What the lmms-eval model does before lmms-eval comes in. `make lmms-eval` tests the rest."""

from __future__ import annotations

import logging
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dyntok
from dyntok.adapters.answering import Generation
from dyntok.adapters.evaluation import (
    EvaluationSettings,
    default_markers,
    find_shown,
    generation_of,
    require_all,
    video_path,
)
from dyntok.adapters.video_ids import ID_RULES, VideoFinder
from dyntok.errors import ConfigError, StoreError, UsageError
from tests.support.samples import complete_store, make_info, sharded_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dyntok.Store:
    """Holds a.mp4, b/ü.mp4, d.mp4 and late.mp4; bad.mp4 failed."""
    folder = tmp_path_factory.mktemp("complete")
    complete_store(str(folder), make_info())
    return dyntok.open(folder)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dyntok.Store:
    """Holds s0/v0.mp4, s0/v1.mp4 and s1/v0.mp4."""
    folder = tmp_path_factory.mktemp("twins")
    sharded_store(str(folder), [2, 1])
    return dyntok.open(folder)


@pytest.mark.parametrize(
    ("path", "video_id"),
    [
        ("a.mp4", "a.mp4"),
        ("/cache/bench/a.mp4", "a.mp4"),
        ("/cache/b/ü.mp4", "b/ü.mp4"),
        ("C:\\cache\\b\\ü.mp4", "b/ü.mp4"),
        ("/elsewhere/ü.mp4", "b/ü.mp4"),
        ("/cache/d.webm", "d.mp4"),
        ("d", "d.mp4"),
    ],
)
def test_a_path_under_any_root_finds_its_video(store: dyntok.Store, path: str, video_id: str) -> None:
    assert VideoFinder(store).find(path) == video_id


def test_the_longest_end_of_the_path_wins(twins: dyntok.Store) -> None:
    finder = VideoFinder(twins)
    assert finder.find("/x/s1/v0.mp4") == "s1/v0.mp4"
    assert finder.find("/x/s0/v0.mp4") == "s0/v0.mp4"


@pytest.mark.parametrize("path", ["/x/v0.mp4", "/x/s2/v0.mp4", "v0.mkv"])
def test_a_path_that_could_be_two_videos_is_an_error(twins: dyntok.Store, path: str) -> None:
    with pytest.raises(UsageError, match="could be 2 videos") as caught:
        VideoFinder(twins).find(path)
    assert path in caught.value.message
    assert "s0/v0.mp4, s1/v0.mp4" in caught.value.message


@pytest.mark.parametrize(
    ("rule", "path", "found"),
    [
        ("path", "/x/s0/v1.mp4", True),
        ("path", "/x/v1.mp4", False),
        ("name", "/x/v1.mp4", True),
        ("name", "/x/v1.mkv", False),
        ("stem", "/x/v1.mkv", True),
        ("stem", "/x/v2.mkv", False),
    ],
)
def test_a_rule_alone_finds_only_what_it_says(twins: dyntok.Store, rule: str, path: str, found: bool) -> None:
    finder = VideoFinder(twins, rule)
    if found:
        assert finder.find(path) == "s0/v1.mp4"
    else:
        with pytest.raises(StoreError, match=f"{path} is not in the store; tried {rule} against"):
            finder.find(path)


def test_a_missing_video_is_named_with_what_was_tried(store: dyntok.Store) -> None:
    with pytest.raises(StoreError, match=r"tried path, name, stem against ids like a\.mp4") as caught:
        VideoFinder(store).find("/cache/nothing.mp4")
    assert "/cache/nothing.mp4" in caught.value.message


def test_a_video_that_failed_says_why(store: dyntok.Store) -> None:
    with pytest.raises(StoreError, match="truncated: 3 of 4 frames came"):
        VideoFinder(store).find("/cache/bad.mp4")


def test_an_unknown_rule_is_refused(store: dyntok.Store) -> None:
    with pytest.raises(UsageError, match="id_from=guess"):
        VideoFinder(store, "guess")
    assert ID_RULES[0] == "auto"


@pytest.mark.parametrize(
    ("visual", "path"),
    [
        (None, None),
        ([], None),
        ("a.mp4", "a.mp4"),
        (["a.mp4"], "a.mp4"),
        (("a.mp4",), "a.mp4"),
        ([{"type": "video", "url": "a.mp4"}], "a.mp4"),
        ([{"path": "a.mp4", "url": None, "video_start": None}], "a.mp4"),
    ],
)
def test_the_video_that_a_question_shows(visual: Any, path: str | None) -> None:
    assert video_path(visual) == path


@pytest.mark.parametrize(
    ("visual", "problem"),
    [
        (["a.mp4", "b.mp4"], "shows 2 things"),
        ([{"path": "a.mp4", "video_start": 0}], "a part of a video"),
        ([{"url": "a.mp4", "end_time": 3.5}], "a part of a video"),
        ([object()], "shows a object"),
        ([{"bytes": b""}], "shows a NoneType"),
    ],
)
def test_what_is_not_one_whole_video_is_refused(visual: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        video_path(visual)


def test_all_missing_videos_are_reported_at_once(store: dyntok.Store) -> None:
    shown = find_shown(VideoFinder(store), iter([["x/a.mp4"], None, ["no.mp4"], ["bad.mp4"], ["no.mp4"], ["d.mp4"]]))
    assert shown.ids == ("a.mp4", None, None, None, None, "d.mp4")
    assert sorted(shown.missing) == [2, 3, 4]
    with pytest.raises(StoreError, match="videos of 3 of 6 questions are missing") as caught:
        require_all(shown)
    assert caught.value.message.count("no.mp4") == 1
    assert "truncated" in caught.value.message
    assert "missing=empty" in str(caught.value.hint)
    require_all(find_shown(VideoFinder(store), [["a.mp4"], []]))


def test_settings_come_as_a_command_line_gives_them() -> None:
    settings = EvaluationSettings.create(
        {"store": "out", "pretrained": 7, "threshold": 1, "budget": 800.0, "frames": "fit", "batch_size": "4"}
    )
    assert settings == EvaluationSettings(
        store="out", pretrained="7", threshold=1.0, budget=800, frames="fit", batch_size=4
    )
    assert settings.markers is None
    assert settings.missing == "error"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"store": None}, "argument store is missing"),
        ({"pretrained": ""}, "argument pretrained is missing"),
        ({"stores": "x", "max_batch_size": 3}, "unknown model argument: max_batch_size, stores"),
        ({"threshold": "half"}, "threshold=half"),
        ({"budget": 0}, "budget=0"),
        ({"budget": 10.5}, r"budget=10\.5"),
        ({"frames": "all"}, "frames=all"),
        ({"frames": "fit"}, "goes with a budget"),
        ({"batch_size": "auto"}, "batch_size=auto"),
        ({"markers": "rows"}, "markers=rows is none of row, frame, video, none"),
        ({"dtype": "int8"}, "dtype=int8"),
        ({"id_from": "guess"}, "id_from=guess"),
        ({"missing": "skip"}, "missing=skip is none of error, empty"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationSettings.create({"store": "out", "pretrained": "model", **wrong})


@pytest.mark.parametrize(
    ("config", "has_marker", "markers"),
    [
        ({"model_type": "llava_onevision"}, True, "video"),
        ({"model_type": "llava", "mm_newline_position": "grid"}, True, "row"),
        ({"mm_newline_position": "frame"}, True, "frame"),
        ({"mm_newline_position": "one_token"}, True, "video"),
        ({"mm_newline_position": "no_token"}, True, "none"),
        ({"model_type": "qwen2"}, True, "row"),
        ({"mm_newline_position": "grid"}, False, "none"),
    ],
)
def test_markers_default_to_what_the_checkpoint_was_trained_with(
    config: dict[str, Any], has_marker: bool, markers: str
) -> None:
    assert default_markers(config, has_marker) == markers


@pytest.mark.parametrize(
    ("wanted", "settings"),
    [
        ({}, {"do_sample": False, "max_new_tokens": 1024}),
        ({"temperature": 0, "top_p": 0.9, "max_new_tokens": 3}, {"do_sample": False, "max_new_tokens": 3}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7, "max_new_tokens": 1024}),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False, "max_new_tokens": 1024}),
        ({"temperature": 0.0, "do_sample": True}, {"do_sample": False, "max_new_tokens": 1024}),
        ({"do_sample": True, "top_p": 0.5}, {"do_sample": True, "top_p": 0.5, "max_new_tokens": 1024}),
        ({"num_beams": 3, "max_gen_toks": 9}, {"do_sample": False, "num_beams": 3, "max_new_tokens": 9}),
    ],
)
def test_generation_is_what_the_task_asks(wanted: dict[str, Any], settings: dict[str, Any]) -> None:
    unset = {} if settings["do_sample"] else {"temperature": None, "top_p": None, "top_k": None}
    assert generation_of(wanted) == Generation(settings | unset, ())


@pytest.mark.parametrize(
    ("until", "stop"),
    [(None, ()), ("\n", ("\n",)), (["a", "", "b"], ("a", "b")), ([], ())],
)
def test_stop_strings_of_a_task(until: Any, stop: tuple[str, ...]) -> None:
    assert generation_of({"until": until}).stop == stop


def test_settings_that_mean_nothing_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        generation_of({"image_aspect_ratio": "pad", "until": ["x"], "temperature": 0})
    assert caplog.messages == ["ignored generation settings: image_aspect_ratio"]


@given(
    text=st.text("ab \n", max_size=12),
    stop=st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3).map(tuple),
)
def test_an_answer_ends_before_the_first_stop_string(text: str, stop: tuple[str, ...]) -> None:
    cut = Generation({}, stop).cut(text)
    assert not any(end in cut for end in stop)
    longest = next(size for size in range(len(text), -1, -1) if not any(end in text[:size] for end in stop))
    # The longest beginning without a stop string may hold all but the last character of one.
    assert text[:longest].strip().startswith(cut)
    assert cut == min((text.split(end, 1)[0] for end in stop), key=len, default=text).strip()


def test_without_lmms_eval_the_error_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['lmms_eval'] = None\n"
        "from dyntok.errors import UsageError\n"
        "try: import dyntok.adapters.lmms_eval\n"
        "except UsageError as error: print(error.message, '|', error.hint)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, hint = result.stdout.split("|")
    assert "lmms-eval cannot be imported: " in message
    assert "pip install 'lmms-eval" in hint
    assert "--no-deps dyntok" in hint


def test_the_entry_point_names_a_function_of_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["lmms_eval.models"]["dyntok"]
    entry = EntryPoint("dyntok", value, "lmms_eval.models")
    assert entry.module == "dyntok.adapters.lmms_eval"
    source = (ROOT / "pipelines" / "dyntok" / "adapters" / "lmms_eval.py").read_text()
    assert f"def {entry.attr}(" in source
