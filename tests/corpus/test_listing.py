"""Files, folders, globs and URLs as inputs."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.corpus import CorpusItem, list_inputs
from dyntok.errors import InputError
from tests.corpus.helpers import write_files

NAMES = ("b.mp4", "a/z.MKV", "a/b/c.webm", "a.mov", "a-b/x.avi", "ü é/🎬 1.mp4")


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    root = "memory://corpus"
    for name in NAMES:
        fs.pipe(f"{root}/{name}", name.encode())
    yield root
    fs.rm("/corpus", recursive=True)


def ids(*inputs: str | Path) -> list[str]:
    return [item.id for item in list_inputs([str(i) for i in inputs])]


def test_real_clips_by_folder(clip_folder: Path) -> None:
    items = list(list_inputs([str(clip_folder)]))
    assert [i.id for i in items] == sorted(p.name for p in clip_folder.glob("*.mp4"))
    for item in items:
        assert item.size_bytes == (clip_folder / item.id).stat().st_size
        assert item.ref.path == str(clip_folder / item.id)
        assert item.ref.is_whole_file
        assert (item.source, item.etag, item.extra) == (item.id, None, "{}")


def test_folder_order_is_that_of_the_ids(tmp_path: Path) -> None:
    write_files(tmp_path, *NAMES)
    assert ids(tmp_path) == sorted(NAMES)
    assert ids(f"{tmp_path}/") == sorted(NAMES)
    assert ids(f"{tmp_path}/*") == ["a.mov", "b.mp4"]


@settings(max_examples=40, deadline=None)
@given(st.sets(st.lists(st.sampled_from(["a", "a-", "a.b", "b", "é"]), min_size=1, max_size=3).map(tuple), max_size=8))
def test_local_and_remote_order_is_sorted(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    names = ["/".join(path) + ".mp4" for path in paths]
    write_files(folder, *names)
    fs = fsspec.filesystem("memory")
    try:
        fs.mkdirs("/order", exist_ok=True)
        for name in names:
            fs.pipe(f"memory://order/{name}", b"")
        assert ids(folder) == ids("memory://order") == sorted(names)
    finally:
        fs.rm("/order", recursive=True)
        shutil.rmtree(folder)


def test_source_does_not_depend_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two"):
        write_files(tmp_path / place / "clips", *NAMES)
    inputs = {}
    for place in ("one", "two"):
        monkeypatch.chdir(tmp_path / place)
        inputs[place] = list(list_inputs(["clips", "clips/a/*", "clips/b.mp4"]))
    assert [(i.id, i.source) for i in inputs["one"]] == [(i.id, i.source) for i in inputs["two"]]
    assert all(Path(i.ref.path).is_absolute() for i in inputs["one"])
    assert inputs["one"][-1].id == "b.mp4"


def test_skipped_files_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path, "a.mp4", "notes.txt", ".hidden.mp4", ".git/x.mp4", "._a.mp4", "shard.tar")
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock.mp4"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/up").symlink_to(tmp_path)
    skipped: list[tuple[str, str]] = []
    items = list(list_inputs([str(tmp_path)], on_skip=lambda what, why: skipped.append((what, why))))
    assert [i.id for i in items] == ["a.mp4"]
    assert sorted(skipped) == [
        ("._a.mp4", "hidden"),
        (".git/", "hidden"),
        (".hidden.mp4", "hidden"),
        ("notes.txt", "suffix"),
        ("pipe.mp4", "special"),
        ("shard.tar", "suffix"),
        ("sock.mp4", "special"),
        ("sub/up/", "loop"),
    ]


def test_links(tmp_path: Path) -> None:
    write_files(tmp_path, "real/a.mp4", "elsewhere/b.mp4")
    root = tmp_path / "real"
    (root / "link.mp4").symlink_to(tmp_path / "elsewhere/b.mp4")
    (root / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    (root / "itself.mp4").symlink_to("itself.mp4")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    found = {i.id: i.size_bytes for i in list_inputs([str(root)])}
    assert found == {
        "a.mp4": len("real/a.mp4"),
        "dangling.mp4": None,
        "itself.mp4": None,
        "link.mp4": len("elsewhere/b.mp4"),
        "more/b.mp4": len("elsewhere/b.mp4"),
    }


def test_names_with_control_characters_are_escaped_in_ids_only(tmp_path: Path) -> None:
    write_files(tmp_path, "new\nline.mp4", "esc\x1b[31m.mp4", "u\u2028sep.mp4")
    items = list(list_inputs([str(tmp_path)]))
    assert [i.id for i in items] == ["esc%1B[31m.mp4", "new%0Aline.mp4", "u%E2%80%A8sep.mp4"]
    assert all(i.source == i.id and Path(i.ref.path).is_file() and i.size_bytes for i in items)
    assert ids(tmp_path / "new\nline.mp4") == ["new%0Aline.mp4"]


def test_name_that_is_not_utf8_is_an_error_that_shows_it(tmp_path: Path) -> None:
    bad = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    bad.touch()
    with pytest.raises(InputError, match=r"caf%E9\.mp4") as caught:
        ids(tmp_path)
    assert caught.value.hint
    with pytest.raises(InputError, match="UTF-8"):
        ids(bad)
    bad.rename(bad.with_suffix(".txt"))
    assert ids(tmp_path) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "*.mp4",
        "**/*.mp4",
        "**",
        "a/**",
        "**/c.*",
        "a*/*",
        "?.m??",
        "[ab].mp4",
        "*/b/*",
        "**/**/x.avi",
        "a/b/c.[!m]*",
    ],
)
def test_globs_agree_with_the_standard_library(tmp_path: Path, memory: str, pattern: str) -> None:
    write_files(tmp_path, *NAMES)
    fixed = "" if any(c in pattern.split("/")[0] for c in "*?[") else "a"
    fixed = "a/b" if pattern.startswith("a/b") else fixed
    matches = map(Path, glob.glob(f"{tmp_path}/{pattern}", recursive=True))  # noqa: PTH207  (may repeat a file)
    expected = sorted({str(p.relative_to(tmp_path / fixed)) for p in matches if p.is_file()})
    assert expected
    assert ids(f"{tmp_path}/{pattern}") == expected
    assert ids(f"{memory}/{pattern}") == expected


def test_glob_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, "x/a.mp4", "x/.h.mp4", "y.mp4", "x/a.dat", "x/b.txt")
    monkeypatch.chdir(tmp_path)
    assert ids("*/*") == ["x/a.mp4"]
    assert ids("x/*") == ["a.mp4"]
    assert ids("x/*.dat") == ["a.dat"]
    assert ids("x/.*") == [".h.mp4"]


def test_file_is_taken_by_its_word_even_with_magic_in_its_name(tmp_path: Path) -> None:
    write_files(tmp_path, "odd.suffix", "what[1]?.mp4")
    assert ids(tmp_path / "odd.suffix", tmp_path / "what[1]?.mp4") == ["odd.suffix", "what[1]?.mp4"]


@pytest.mark.parametrize("text", ["gone.mp4", "gone/", "no/*.mp4", "*.mp4", "memory://gone/a.mp4", "memory://gone/*"])
def test_input_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        list(list_inputs([text]))
    assert text in caught.value.message
    assert caught.value.hint


def test_missing_input_is_found_before_the_first_is_listed(tmp_path: Path) -> None:
    write_files(tmp_path, "a.mp4")
    with pytest.raises(InputError, match="gone"):
        list_inputs([str(tmp_path), str(tmp_path / "gone")])


@pytest.mark.parametrize("inputs", [[], [""], "clips"])
def test_no_inputs(inputs: list[str]) -> None:
    with pytest.raises(InputError):
        list_inputs(inputs)


def test_pipe_as_input_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        ids(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, "closed/a.mp4")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="closed"):
            ids(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_memory_filesystem(memory: str) -> None:
    items = list(list_inputs([memory]))
    assert [i.id for i in items] == sorted(NAMES)
    for item in items:
        assert item.ref.path == f"{memory}/{item.id}"
        assert item.size_bytes == len(item.id.encode())
        with fsspec.open(item.ref.path, "rb") as file:
            assert file.read() == item.id.encode()
    assert ids(memory + "/*") == ["a.mov", "b.mp4"]
    assert list(list_inputs([f"{memory}/a/z.MKV"])) == [
        CorpusItem("z.MKV", "z.MKV", items[-3].ref, items[-3].size_bytes)
    ]


def test_root_of_a_filesystem(memory: str) -> None:
    names = sorted(f"corpus/{name}" for name in NAMES)
    assert [i.id for i in list_inputs(["memory://"]) if i.id.startswith("corpus/")] == names
    assert ids("memory://corp*/**") == names
    (item,) = list_inputs(["memory://corpus*/b.mp4"])
    assert item.ref.path == "memory://corpus/b.mp4"


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    write_files(tmp_path, "a b.mp4")
    (item,) = list_inputs([f"file://{tmp_path}/a b.mp4"])
    assert item.ref.path == str(tmp_path / "a b.mp4")
    assert ids(f"file://{tmp_path}") == ["a b.mp4"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://x/y.mp4", "nosuch"),
        ("zip://a.mp4::memory://x.zip", "chained"),
        ("simplecache::memory://x.mp4", "does not exist"),
    ],
)
def test_urls_that_cannot_be_opened(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_inputs([url])


def test_inputs_keep_their_order(tmp_path: Path, memory: str) -> None:
    write_files(tmp_path, "z/1.mp4", "y/0.mp4")
    assert ids(tmp_path / "z", memory, tmp_path / "y") == ["1.mp4", *sorted(NAMES), "0.mp4"]
