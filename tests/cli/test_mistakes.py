"""The likeliest mistakes: each has a message that names the thing, a hint that mends it, and its exit code."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dyntok.corpus import access
from dyntok.store.signed import sign, unsign
from dyntok.testing import make_tiny_siglip
from tests.cli.conftest import Ran, digests

DEMO = ("--model", "demo", "--frames", "2", "--decode-workers", "1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mistake is made: an empty folder, a clip, and a store that is not to be changed."""

    folder: Path
    clip: Path
    store: Path

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def copy(self) -> Path:
        return Path(shutil.copytree(self.store, self.folder / "copy"))


@dataclass(frozen=True, slots=True)
class Mistake:
    """`words` makes the command line; `error` and `hint` are parts of what it must say."""

    name: str
    words: Callable[[Place], tuple[object, ...]]
    code: int
    error: str
    hint: str


def encode(place: Place, *inputs: object, out: str = "new") -> tuple[object, ...]:
    return ("encode", *inputs, "--out", place.folder / out, *DEMO)


def newer(place: Place) -> Path:
    """A copy of the store as a later dyntok would sign it."""
    copy = place.copy()
    file = copy / "dataset.json"
    file.write_bytes(sign({**unsign(file.read_bytes(), "it", indent=2), "format_version": 2}, indent=2))
    return copy


def closed(place: Place) -> Path:
    """A folder to which nobody may write; not even root, to whom /proc says so."""
    if os.geteuid() == 0:
        return Path("/proc/dyntok")
    folder = place.folder / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    return folder / "new"


def without_tower(place: Place) -> Path:
    """A checkpoint of a language model alone."""
    place.file("llm/config.json", json.dumps({"model_type": "qwen2", "hidden_size": 32}))
    save_file({"model.norm.weight": torch.ones(32)}, place.folder / "llm" / "model.safetensors")
    return place.folder / "llm"


def folder_of(place: Place, *names: str) -> Path:
    folder = place.folder / "videos"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("text")
    return folder


def twice(place: Place) -> Path:
    rows = [{"path": str(place.clip), "id": "a"}, {"path": str(place.folder / "other.mp4"), "id": "a"}]
    return place.file("twice.jsonl", "\n".join(map(json.dumps, rows)))


def settings(place: Place, text: str) -> tuple[object, ...]:
    return (
        "encode",
        place.clip,
        "--out",
        place.folder / "new",
        "--config",
        place.file("settings.yaml", text),
    )


MISTAKES = [
    # inputs
    Mistake(
        "no such input",
        lambda p: encode(p, p.folder / "vidoes"),
        2,
        "vidoes does not exist",
        "check the path",
    ),
    Mistake("an empty folder", lambda p: encode(p, folder_of(p)), 2, "the inputs hold no video", ".mp4"),
    Mistake(
        "a folder without videos",
        lambda p: encode(p, folder_of(p, "notes.txt")),
        2,
        "the inputs hold no video",
        ".mp4",
    ),
    Mistake("a pattern without a match", lambda p: encode(p, p.folder / "*.mp4"), 2, "matches no video", "'clips/"),
    Mistake(
        "a manifest without the column path",
        lambda p: encode(p, p.file("list.csv", "file,id\na.mp4,a\n")),
        2,
        "list.csv has no column `path`",
        "name the column",
    ),
    Mistake(
        "a line without a path",
        lambda p: encode(p, p.file("list.jsonl", '{"video": "a.mp4"}\n')),
        2,
        "list.jsonl, line 1 has no `path`",
        '{"path": "clips/a.mp4", "id": "a"}',
    ),
    Mistake(
        "a manifest that is none",
        lambda p: encode(p, p.file("list.jsonl", "clips/a.mp4\n")),
        2,
        "list.jsonl, line 1 is not JSON",
        '{"path": "clips/a.mp4", "id": "a"}',
    ),
    Mistake(
        "a parquet manifest that is none",
        lambda p: encode(p, p.file("list.parquet", b"no parquet")),
        2,
        "list.parquet is no readable parquet file",
        "write it again",
    ),
    Mistake("two videos of one id", lambda p: encode(p, twice(p)), 2, "two inputs have the id 'a'", "id"),
    Mistake(
        "a compressed tar",
        lambda p: encode(p, p.file("clips.tar.gz", b"")),
        2,
        "clips.tar.gz is a compressed tar",
        "decompress",
    ),
    # the store to be written
    Mistake("no --out", lambda p: ("encode", p.clip, *DEMO), 2, "no --out was given", "--out DIR"),
    Mistake(
        "--out is a file",
        lambda p: encode(p, p.clip, out=p.file("new", "text").name),
        1,
        "file that is no folder",
        "--out",
    ),
    Mistake(
        "--out holds something else",
        lambda p: encode(p, p.clip, out=p.file("thesis/a.tex", "text").parent.name),
        2,
        "thesis is not empty and holds no store (for example a.tex)",
        "new folder",
    ),
    Mistake(
        "--out may not be written",
        lambda p: ("encode", p.clip, "--out", closed(p), *DEMO),
        1,
        "cannot",
        "--out",
    ),
    Mistake(
        "other settings than the store's",
        lambda p: ("encode", "--out", p.store, "--frames", "5"),
        2,
        "was made with other settings: frames: was 3, is 5",
        "another --out",
    ),
    Mistake(
        "other inputs than the store's",
        lambda p: (
            "encode",
            p.clip.parent / "bikes.mp4",
            "--out",
            p.store,
            "--model",
            "demo",
            "--frames",
            "3",
        ),
        2,
        "1 inputs are not in the plan",
        "--extend",
    ),
    # settings
    Mistake(
        "no model",
        lambda p: ("encode", p.clip, "--out", p.folder / "new"),
        2,
        "no model was given",
        "--model demo",
    ),
    Mistake(
        "a threshold out of range",
        lambda p: (*encode(p, p.clip), "--thresholds", "0.4,1.5"),
        2,
        "a threshold lies between -1 and 1, got 1.5",
        "dyntok config",
    ),
    Mistake(
        "a threshold in words",
        lambda p: (*encode(p, p.clip), "--thresholds", "high"),
        2,
        "'high' is no list of numbers",
        "--thresholds 0.4,0.5,0.6",
    ),
    Mistake(
        "--frames with --fps",
        lambda p: (*encode(p, p.clip), "--fps", "1"),
        2,
        "frames or fps",
        "--max-frames",
    ),
    Mistake(
        "--max-frames without --fps",
        lambda p: (*encode(p, p.clip), "--max-frames", "5"),
        2,
        "max_frames goes with fps",
        "--fps",
    ),
    Mistake(
        "a size in words",
        lambda p: (*encode(p, p.clip), "--shard-size", "big"),
        2,
        "shard-size: 'big' is not a size such as 1GB",
        "dyntok config",
    ),
    Mistake(
        "a setting that there is not",
        lambda p: settings(p, "model: demo\nframe: 8\n"),
        2,
        "frame: there is no such setting",
        "did you mean `frames`?",
    ),
    Mistake(
        "a config that is no YAML",
        lambda p: settings(p, "a: [1\n"),
        2,
        "settings.yaml is not valid YAML",
        "line",
    ),
    Mistake(
        "a config that is a list",
        lambda p: settings(p, "- a\n"),
        2,
        "one mapping of settings",
        "dyntok config",
    ),
    # the model
    Mistake(
        "no such model folder",
        lambda p: ("encode", p.clip, "--out", p.folder / "new", "--model", p.folder / "models" / "lava"),
        1,
        "lava",
        "config.json",
    ),
    Mistake(
        "a model folder without a vision tower",
        lambda p: ("encode", p.clip, "--out", p.folder / "new", "--model", without_tower(p)),
        1,
        "'qwen2'",
        "LLaVA-OneVision",
    ),
    Mistake(
        "a tower without projector",
        lambda p: (
            "encode",
            p.clip,
            "--out",
            p.folder / "new",
            "--model",
            make_tiny_siglip(p.folder / "siglip"),
        ),
        1,
        "no projector",
        "--space vision",
    ),
    # flags and commands
    Mistake(
        "a misspelt flag",
        lambda p: ("encode", "--treshold", "1"),
        2,
        "no such option: --treshold",
        "`--thresholds`",
    ),
    Mistake("a misspelt command", lambda p: ("verfy", p.store), 2, "no such command 'verfy'", "`dyntok verify`"),
    Mistake("no store", lambda p: ("status",), 2, "missing argument 'STORE'", "dyntok status --help"),
    Mistake(
        "a job that there is not",
        lambda p: (*encode(p, p.clip), "--num-jobs", "4", "--job-index", "4"),
        2,
        "there is no job 4 of 4",
        "from 0 to 3",
    ),
    Mistake(
        "half of a job",
        lambda p: (*encode(p, p.clip), "--num-jobs", "4"),
        2,
        "go together",
        "--job-index $SLURM_ARRAY_TASK_ID",
    ),
    # a store to be read
    *(
        Mistake(
            f"{command} of no store",
            lambda p, command=command: (command, p.folder / "tokns"),
            1,
            "tokns",
            "check the path",
        )
        for command in ("status", "verify", "stats", "inspect", "logs")
    ),
    Mistake(
        "a newer store",
        lambda p: ("inspect", newer(p)),
        1,
        "of format 2; this dyntok reads",
        "pip install --upgrade",
    ),
    Mistake(
        "an id that there is not",
        lambda p: ("inspect", p.store, "carphone.mp4"),
        2,
        "no video carphone.mp4",
        "carphone",
    ),
    Mistake(
        "the format that the store has",
        lambda p: ("convert", p.store, p.folder / "new", "--format", "webdataset"),
        2,
        "webdataset",
        "zarr",
    ),
]


@pytest.fixture
def place(tmp_path: Path, carphone: Path, store: Path) -> Iterator[Place]:
    yield Place(tmp_path, carphone, store)
    if (tmp_path / "closed").exists():
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_answered(mistake: Mistake, place: Place, cli: Callable[..., Ran]) -> None:
    before = digests(place.store)
    ran = cli(*mistake.words(place))
    assert ran.code == mistake.code, ran.stderr
    assert ran.stdout == ""
    assert mistake.error in ran.error
    assert mistake.hint in ran.hint
    assert "unexpected" not in ran.error
    assert ran.hint, "nothing says what to do"
    assert digests(place.store) == before


def test_thresholds_may_come_in_any_order_and_twice(place: Place, cli: Callable[..., Ran]) -> None:
    shown = cli("config", "show", "--thresholds", "0.6,0.4,0.6", "--json").json
    assert shown["settings"]["thresholds"]["value"] == [0.4, 0.6]


def test_a_locked_store(place: Place, cli: Callable[..., Ran]) -> None:
    copy = place.copy()
    with locked(copy / ".lock"):
        ran = cli("encode", "--out", copy)
    assert ran.code == 1
    assert "another process is writing" in ran.error
    assert "dyntok status" in ran.hint


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("url", ["gs://bucket/videos", "s3://bucket/videos"])
@pytest.mark.parametrize("use", ["input", "store"])
def test_a_missing_driver(
    url: str, use: str, place: Place, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store whose extra is not installed."""
    module = "s3fs" if url.startswith("s3") else "gcsfs"
    for protocol in ("s3", "s3a", "gs", "gcs"):  # where an earlier test has loaded it
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    access._check_protocol.cache_clear()
    words = encode(place, url) if use == "input" else ("status", url)
    ran = cli(*words)
    access._check_protocol.cache_clear()
    assert ran.code == (2 if use == "input" else 1)
    assert "unexpected" not in ran.error
    assert f"dyntok[{'s3' if module == 's3fs' else 'gcs'}]" in ran.hint


def test_a_folder_without_videos_says_what_was_passed_over(place: Place, cli: Callable[..., Ran]) -> None:
    ran = cli(*encode(place, folder_of(place, "notes.txt", ".hidden.mp4")))
    assert "2 files passed over: 1 hidden, 1 without the suffix of a video" in ran.stderr
