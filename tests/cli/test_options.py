"""Flags, the YAML file and `EncodeConfig` say the same things under the same names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from dyntok.config import EncodeConfig, load_config_file, parse_size
from dyntok.errors import ConfigError
from dyntok.meanings import MEANINGS
from dyntok_cli.commands.config import template
from dyntok_cli.configuring import EXAMPLE_MODEL, encode_config, overridden
from dyntok_cli.options import SETTINGS, SIZES
from tests.cli.conftest import Ran

FIELDS = EncodeConfig.model_fields


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def bare(annotation: Any) -> set[Any]:
    """The types of an annotation without None; a Literal as its values."""
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*(bare(part) for part in get_args(annotation))) - {NoneType}
    return set(get_args(annotation)) if get_origin(annotation) is Literal else {annotation}


def test_every_setting_has_its_flag_and_its_meaning_and_every_flag_its_setting() -> None:
    assert list(SETTINGS) == list(MEANINGS) == list(FIELDS)


def test_the_schema_holds_the_meanings() -> None:
    properties = EncodeConfig.model_json_schema()["properties"]
    assert {name: field["description"] for name, field in properties.items()} == MEANINGS


@pytest.mark.parametrize("command", ["encode", "plan"])
def test_the_flags_are_really_there(command: str, cli: Callable[..., Ran]) -> None:
    found = set(re.findall(r"--[a-z][a-z-]*", cli(command, "--help").stdout))
    assert {flag_of(name) for name in FIELDS} <= found


@pytest.mark.parametrize("name", FIELDS)
def test_types_and_choices_agree(name: str) -> None:
    flag = bare(get_args(SETTINGS[name])[0])
    setting = bare(FIELDS[name].annotation)
    if name in SIZES or name == "thresholds":
        assert flag == {str}
    else:
        assert flag == setting


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_in_the_help_is_the_real_one(name: str) -> None:
    shown = re.search(r"\[default: (.*)\]", SETTINGS[name].__metadata__[0].help)
    if shown is None:
        return
    default: Any = FIELDS[name].default
    if name in SIZES:
        assert parse_size(shown[1]) == default
    elif name == "thresholds":
        assert tuple(float(part) for part in shown[1].split(",")) == default
    else:
        assert type(default)(shown[1]) == default


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ({"thresholds": "0.6,0.3,"}, "thresholds", (0.3, 0.6)),
        ({"shard_size": "2MiB"}, "shard_size", 2**21),
        ({"decode_memory": "1GB"}, "decode_memory", 10**9),
        ({"fps": 2.0}, "frames", None),
        ({"compile": False}, "compile", False),
    ],
)
def test_flags_become_settings(flags: dict[str, Any], name: str, value: object) -> None:
    config = encode_config({"model": "demo", **flags}, None, inputs=["a"], out=None)
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("1gb", 10**9),
        ("1.5 gb", 1_500_000_000),
        ("512MiB", 2**29),
        ("4Gi", 2**32),
        ("2g", 2 * 10**9),
        ("1T", 10**12),
        ("7b", 7),
        (" 500 ", 500),
        ("1.5", 1),
        (1000, 1000),
        (1e9, 10**9),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "GB", "-1", "+1", "0", "0.4", "nan", "inf", "1e3", "0x10", ".5GB", "1.", "1,5GB", "1_000"),
        *("1 GB 2", "1 G i B", "1ib", "1kbit", "1PB", "\u0663", "9" * 400, "9" * 400 + "GB"),
        *(True, False, None, [1]),
    ],
)
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(ConfigError, match="size"):
        EncodeConfig.create(model="demo", shard_size=text)


NUMBERS = [name for name in FIELDS if bare(FIELDS[name].annotation) & {int, float}]


@pytest.mark.parametrize("name", [*NUMBERS, "thresholds"])
@pytest.mark.parametrize("word", ["yes", "on", "true", "no"])
def test_yes_and_no_in_yaml_are_no_numbers(name: str, word: str, tmp_path: Path) -> None:
    assert {"frames", "batch_size", "shard_size", "decode_timeout_s"} <= set(NUMBERS)
    file = tmp_path / "settings.yaml"
    file.write_text(f"model: demo\n{name}: {f'[0.5, {word}]' if name == 'thresholds' else word}\n")
    with pytest.raises(ConfigError, match=flag_of(name)[2:]) as caught:
        encode_config({}, str(file), inputs=["a"], out=None)
    assert "True" in caught.value.message or "False" in caught.value.message


def test_yes_and_no_are_what_a_switch_takes(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model: demo\ncompile: yes\nfail_fast: off\n")
    config = encode_config({}, str(file), inputs=["a"], out=None)
    assert (config.compile, config.fail_fast) == (True, False)


def test_flags_override_the_file_and_what_is_not_given_does_not(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model: demo\nbatch-size: 4\nfail_fast: true\nthresholds: [0.5]\n")
    config = encode_config({"batch_size": 8}, str(file), inputs=["a"], out=None)
    assert (config.batch_size, config.fail_fast, config.thresholds) == (8, True, (0.5,))


@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [
        ({"frames": 8}, {"fps": 1.0}, (None, 1.0, None)),
        ({"fps": 1.0, "max_frames": 9}, {"frames": 8}, (8, None, None)),
        ({"fps": 1.0, "max_frames": 9}, {"fps": 2.0}, (None, 2.0, 9)),
        ({"fps": 1.0}, {"max_frames": 9}, (None, 1.0, 9)),
        ({"frames": 32, "fps": None, "max_frames": None}, {"fps": 2.0}, (None, 2.0, None)),
    ],
)
def test_one_way_of_sampling_replaces_the_other(
    file: dict[str, Any], flags: dict[str, Any], expected: tuple[object, ...]
) -> None:
    config = EncodeConfig.create(model="demo", **overridden(file, flags))
    assert (config.frames, config.fps, config.max_frames) == expected


def test_contradicting_flags_are_still_refused() -> None:
    with pytest.raises(ConfigError, match="either frames or fps"):
        encode_config({"model": "demo", "frames": 4, "fps": 1.0}, None, inputs=["a"], out=None)


def test_the_template_loads_back_into_the_defaults(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("config")
    assert ran.code == 0
    file = tmp_path / "template.yaml"
    file.write_text(ran.stdout)
    settings = load_config_file(file)
    assert list(settings) == list(FIELDS)
    assert EncodeConfig.create(**settings) == EncodeConfig(model=EXAMPLE_MODEL)


def test_every_setting_of_the_template_is_explained() -> None:
    for block in template().split("\n\n")[1:]:
        assert re.match(r"# \S+ \S+", block), block


def test_the_schema_is_that_of_the_config(cli: Callable[..., Ran]) -> None:
    assert cli("config", "--json").json == EncodeConfig.model_json_schema()


def test_show_says_where_each_value_comes_from(tmp_path: Path, store: Path, cli: Callable[..., Ran]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("batch_size: 4\ndtype: float16\n")
    ran = cli("config", "show", file, "--out", store, "--dtype", "float32", "--json")
    assert ran.code == 0, ran.stderr
    shown = {name: (item["value"], item["source"]) for name, item in ran.json["settings"].items()}
    assert list(shown) == list(FIELDS)
    assert shown["frames"] == (3, "store")
    assert shown["model"] == ("demo", "store")
    assert shown["batch_size"] == (4, str(file))
    assert shown["dtype"] == ("float32", "flag")
    assert shown["decode_workers"] == (0, "default")


def test_show_is_what_encode_would_take(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    shown = cli("config", "show", "--fps", 2, "--shard-size", "1MiB", "--json").json["settings"]
    assert shown["model"] == {"value": None, "source": "default"}
    assert (shown["frames"], shown["fps"]["source"]) == ({"value": None, "source": "flag"}, "flag")
    values = {name: item["value"] for name, item in shown.items()} | {"model": "demo"}
    assert EncodeConfig.create(**values) == encode_config(
        {"model": "demo", "fps": 2.0, "shard_size": "1MiB"}, None, inputs=["a"], out=None
    )


def test_show_refuses_what_encode_would_refuse(cli: Callable[..., Ran]) -> None:
    ran = cli("config", "show", "--thresholds", "2")
    assert (ran.code, ran.stdout) == (2, "")
    assert "between -1 and 1" in ran.error


def test_init_writes_the_template_and_never_over_a_file(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    file = tmp_path / "settings.yaml"
    ran = cli("config", "init", file)
    assert ran.code == 0
    assert file.read_text() == template() + "\n"
    assert str(file) in ran.hint
    file.write_text("mine")
    again = cli("config", "init", file)
    assert again.code == 2
    assert "exists already" in again.error
    assert file.read_text() == "mine"


def test_flags_of_settings_go_with_show_alone(cli: Callable[..., Ran]) -> None:
    for words in (("config", "--fps", 1), ("config", "init", "--out", "b")):
        ran = cli(*words)
        assert ran.code == 2
        assert "dyntok config show" in ran.hint
