"""What `--json` prints has the keys and types of docs/json.md, and no others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dyntok_cli.commands import COMMANDS
from tests.cli.conftest import Ran

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
Cli = Callable[..., Ran]
Keys = dict[str, str]

IS = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
    "any": lambda value: True,
}
# Described elsewhere, on the page of its own that the section links to.
ELSEWHERE = {"stats"}


def keys_of(heading: str, table: int = 0) -> Keys:
    """Key -> type, of the n-th table of a section (or of the page's beginning)."""
    section = f"\n{PAGE}".split(f"\n## {heading}\n" if heading else "\n# ")[1].split("\n## ")[0]
    tables = re.findall(r"\| key \| type \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", section + "\n")
    found = {}
    for line in tables[table].splitlines():
        names, kind, _ = [cell.strip() for cell in line.strip("|").split("|", 2)]
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), kind)
    return found


def leaves(value: Any, keys: Keys, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every described key of a document, and its value. What a key of the page ends at is not looked into."""
    if path in keys:
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            exact, anything = (f"{path}.{last}".lstrip(".") for last in (name, "*"))
            yield from leaves(inner, keys, exact if within(exact, keys) or not within(anything, keys) else anything)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, keys, f"{path}[]")
    else:
        yield path, value


def within(path: str, keys: Keys) -> bool:
    """Whether the page has this key, or keys below it."""
    return any(key == path or key.startswith((f"{path}.", f"{path}[]")) for key in keys)


def hold(keys: Keys, *documents: Any, empty: tuple[str, ...] = ()) -> None:
    """Every key of the documents is on the page with its type, and every one on the page is in a document.

    `empty`: keys below lists or maps that hold nothing here.
    """
    seen = set()
    for document in documents:
        for path, value in leaves(document, keys):
            assert path in keys, f"{path} is not on the page"
            assert any(IS[kind](value) for kind in keys[path].split(" or ")), f"{path}: {value!r} is no {keys[path]}"
            seen.add(path)
    assert keys.keys() - seen == {key for key in keys if key.startswith(empty or "\0")} - seen


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, carphone: Path, cli: Cli) -> tuple[Path, Any]:
    """A store of one job, with one done and one failed video, and what encode said."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "videos").mkdir()
    shutil.copy(carphone, folder / "videos" / "good.mp4")
    (folder / "videos" / "bad.mp4").write_text("this is no video\n" * 50)
    flags = (
        "--model",
        "demo",
        "--frames",
        "2",
        "--decode-workers",
        "1",
        "--num-jobs",
        "1",
        "--job-index",
        "0",
    )
    ran = cli("encode", folder / "videos", "--out", folder / "store", *flags, "--json")
    assert ran.code == 3, ran.stderr
    assert cli("status", folder / "store", "--finalize").code == 3
    return folder / "store", ran.json


def test_every_command_has_its_section() -> None:
    assert sorted(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)) == sorted(COMMANDS)
    for command in ELSEWHERE:
        assert "key | type" not in PAGE.split(f"\n## {command}\n")[1].split("\n## ")[0]


def test_encode_and_its_failures(mixed: tuple[Path, Any]) -> None:
    _, document = mixed
    hold(keys_of("encode"), document)
    (failure,) = document["failures"]
    hold(keys_of(""), failure, {"tokens": {"0.40": 1}})


def test_status(mixed: tuple[Path, Any], cli: Cli) -> None:
    store, _ = mixed
    document = cli("status", store, "--shards", "--json").json
    hold(keys_of("status"), document, empty=("busy.",))
    hold(keys_of(""), document["failures"][0], {"tokens": {"0.40": 1}})


def test_logs(mixed: tuple[Path, Any], cli: Cli) -> None:
    store, _ = mixed
    hold(keys_of("logs"), cli("logs", store, "--json").json)
    hold(keys_of("logs", 1), cli("logs", store, "--failed", "--json").json)


def test_plan(carphone: Path, cli: Cli) -> None:
    hold(keys_of("plan"), cli("plan", carphone, "--model", "demo", "--json").json)


def test_verify_and_repair(mixed: tuple[Path, Any], tmp_path: Path, cli: Cli) -> None:
    copy = Path(shutil.copytree(mixed[0], tmp_path / "copy"))
    shard = copy / "shards" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    hold(keys_of("verify"), cli("verify", copy, "--json").json)
    repaired = cli("verify", copy, "--repair", "--json").json
    hold(keys_of("verify", 1), repaired)
    hold(keys_of("verify"), repaired["before"])


def test_inspect(store: Path, cli: Cli) -> None:
    hold(keys_of("inspect"), cli("inspect", store, "--json").json)
    ids = cli("inspect", store, "--ids", "--json").json
    hold(keys_of("inspect", 1), ids)
    hold(keys_of("inspect", 2), cli("inspect", store, ids["ids"][0], "--json").json)


def test_convert(store: Path, tmp_path: Path, cli: Cli) -> None:
    hold(keys_of("convert"), cli("convert", store, tmp_path / "zarr", "--format", "zarr", "--json").json)


def test_demo(tmp_path: Path, carphone: Path, cli: Cli) -> None:
    keys = {**keys_of("encode"), **keys_of("demo")}
    del keys["videos"]
    hold(keys, cli("demo", carphone, "--out", tmp_path / "demo", "--frames", "2", "--json").json)


def test_config(tmp_path: Path, cli: Cli) -> None:
    hold(keys_of("config"), cli("config", "init", tmp_path / "a.yaml", "--json").json)
    hold(keys_of("config", 1), cli("config", "show", "--json").json)


def test_doctor(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dyntok_cli.checks.storage.PROBE_BYTES", 10**6)
    hold(keys_of("doctor"), cli("doctor", tmp_path, "--json").json)


def test_a_key_that_is_not_on_the_page_is_found() -> None:
    keys = keys_of("convert")
    good = dict.fromkeys(("source", "target", "format"), "a") | dict.fromkeys(
        ("shards", "already", "videos", "bytes"), 1
    )
    hold(keys, good)
    for bad in ({**good, "new": 1}, {**good, "bytes": "1"}, {k: v for k, v in good.items() if k != "bytes"}):
        with pytest.raises(AssertionError):
            hold(keys, bad)
