from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import dyntok
from dyntok.errors import InputError, RunError, StoreLockedError, StoreMismatchError
from dyntok.run import encode, status
from dyntok.run.lock import store_lock, writers
from dyntok.store import StoreRoot, verify
from tests.support.runs import demo_config, result_digests

Corpus = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path, clip_folder: Path) -> Corpus:
    """Makes a folder of copies of a small clip: `corpus("a", "b", bad=["c"])`."""

    def make(*names: str, bad: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(clip_folder / "carphone_pristine.mp4", folder / f"{name}.mp4")
        for name in bad:
            (folder / f"{name}.mp4").write_text(f"{name} is no video")
        return folder

    return make


def test_the_same_command_again_does_nothing(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a", "b"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    before = result_digests(out)
    again = encode([str(folder)], str(out), demo_config(decode_workers=1))
    assert again.already == 2
    assert result_digests(out) == before
    assert encode([], str(out), demo_config()).already == 2


def test_other_settings_are_refused_and_named(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    with pytest.raises(StoreMismatchError, match=r"frames: was 4, is 8") as caught:
        encode([str(folder)], str(out), demo_config(frames=8))
    assert caught.value.hint
    with pytest.raises(StoreMismatchError, match="dtype"):
        encode([str(folder)], str(out), demo_config(dtype="float32"))
    assert verify(str(out)).ok


def test_changed_inputs_are_refused(corpus: Corpus, tmp_path: Path, bikes: Path) -> None:
    folder, out = corpus("a", "b"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    shutil.copy(bikes, folder / "b.mp4")
    with pytest.raises(StoreMismatchError, match=r"b\.mp4"):
        encode([str(folder)], str(out), demo_config())


def test_a_new_modification_time_is_no_change(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    os.utime(folder / "a.mp4", (1, 1))
    assert encode([str(folder)], str(out), demo_config()).already == 1


def test_new_inputs_need_extend_and_get_new_shards(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a", "b"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    first = result_digests(out)
    corpus("c")
    with pytest.raises(StoreMismatchError, match="1 inputs are not in the plan") as caught:
        encode([str(folder)], str(out), demo_config())
    assert "--extend" in str(caught.value.hint)
    report = encode([str(folder)], str(out), demo_config(), extend=True)
    assert (report.videos, report.done, report.already, report.shards) == (3, 3, 2, 2)
    after = result_digests(out)
    assert {n: after[n] for n in first if n.startswith("shards/")} == {
        n: d for n, d in first.items() if n.startswith("shards/")
    }
    assert sorted(dyntok.open(out).ids) == ["a.mp4", "b.mp4", "c.mp4"]
    assert verify(str(out)).ok


def test_failed_videos_are_tried_again_only_when_asked(corpus: Corpus, tmp_path: Path, carphone: Path) -> None:
    folder, out = corpus("a", bad=("b", "c")), tmp_path / "out"
    report = encode([str(folder)], str(out), demo_config())
    assert (report.done, report.failed) == (1, 2)
    assert {row.error_class for row in report.failures} == {"not_a_video"}
    assert encode([str(folder)], str(out), demo_config()).failed == 2
    shutil.copy(carphone, folder / "b.mp4")
    report = encode([str(folder)], str(out), demo_config(), retry_failed=True)
    assert (report.videos, report.done, report.failed, report.shards) == (3, 2, 1, 2)
    assert report.failures[0].attempt == 2
    assert sorted(dyntok.open(out).ids) == ["a.mp4", "b.mp4"]
    assert verify(str(out)).ok
    total = status(str(out))
    assert (total.videos, total.done, total.failed, total.pending) == (3, 2, 1, 0)


@pytest.mark.slow
def test_fail_fast_names_the_video_and_leaves_a_resumable_store(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("b", bad=("a",)), tmp_path / "out"
    with pytest.raises(RunError, match=r"a\.mp4: not_a_video"):
        encode([str(folder)], str(out), demo_config(fail_fast=True))
    assert status(str(out)).state == "planned"
    report = encode([str(folder)], str(out), demo_config())
    assert (report.done, report.failed) == (1, 1)


def test_a_missing_file_of_a_manifest_ends_as_failed(corpus: Corpus, tmp_path: Path) -> None:
    corpus("a")
    manifest = tmp_path / "videos" / "list.jsonl"
    manifest.write_text('{"path": "a.mp4"}\n{"path": "gone.mp4"}\n')
    report = encode([str(manifest)], str(tmp_path / "out"), demo_config())
    assert (report.videos, report.done, report.failed) == (2, 1, 1)
    assert report.failures[0].error_class == "not_found"


def test_two_writers_are_kept_apart(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    root = StoreRoot.open(str(out))
    assert not writers(root)
    with store_lock(root):
        assert writers(root)
        assert status(str(out)).running
        with pytest.raises(StoreLockedError, match="another process"):
            encode([str(folder)], str(out), demo_config())
    assert not writers(root)


def test_a_folder_with_other_files_is_no_store(corpus: Corpus, tmp_path: Path) -> None:
    folder = corpus("a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(StoreMismatchError, match=r"thesis\.txt"):
        encode([str(folder)], str(tmp_path / "out"), demo_config())
    with pytest.raises(InputError, match="no inputs"):
        encode([], str(tmp_path / "new"), demo_config())


@pytest.mark.parametrize("format", ["webdataset", pytest.param("zarr", marks=pytest.mark.slow)])
def test_a_lost_record_or_a_torn_one_is_made_again(corpus: Corpus, tmp_path: Path, format: str) -> None:
    folder, out = corpus("a", "b", "c"), tmp_path / "out"
    config = demo_config(shard_size="1KB", format=format)
    encode([str(folder)], str(out), config)
    whole = result_digests(out)
    (out / "shards" / "shard-000000.json").unlink()
    torn = out / "shards" / "shard-000002.json"
    torn.write_bytes(torn.read_bytes()[:50])
    (out / "manifest.json").unlink()
    assert status(str(out)).shards_done == 1
    assert encode([str(folder)], str(out), config).already == 1
    assert result_digests(out) == whole
    assert verify(str(out)).ok


def test_tars_and_manifests_carry_ids_and_columns(corpus: Corpus, tmp_path: Path, clip_folder: Path) -> None:
    folder = corpus("a", "b")
    subprocess.run(["tar", "-cf", str(tmp_path / "clips.tar"), "-C", str(folder), "."], check=True)
    encode([str(tmp_path / "clips.tar")], str(tmp_path / "tar"), demo_config(dtype="float32"))
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,id,label\nvideos/a.mp4,first,cat\nvideos/b.mp4,second,dog\n")
    encode([str(manifest)], str(tmp_path / "csv"), demo_config(dtype="float32"))
    tar, csv = dyntok.open(tmp_path / "tar"), dyntok.open(tmp_path / "csv")
    assert sorted(tar.ids) == ["a.mp4", "b.mp4"]
    assert csv["second"].meta["columns"] == {"label": "dog"}
    assert tar["a.mp4"].at().tokens.equal(csv["first"].at().tokens)


@pytest.mark.slow
def test_a_store_that_is_being_extended_is_not_complete(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a"), tmp_path / "out"
    encode([str(folder)], str(out), demo_config())
    assert (out / "manifest.json").exists()
    corpus(bad=("b",))
    with pytest.raises(RunError):
        encode([str(folder)], str(out), demo_config(fail_fast=True), extend=True)
    assert not (out / "manifest.json").exists()
    total = status(str(out))
    assert (total.state, total.done, total.pending) == ("incomplete", 1, 1)
    assert dyntok.open(out).ids == ["a.mp4"]
    assert encode([str(folder)], str(out), demo_config()).failed == 1
    assert verify(str(out)).ok


@pytest.mark.slow
def test_a_run_that_never_began_binds_nobody(corpus: Corpus, tmp_path: Path) -> None:
    folder, out = corpus("a"), tmp_path / "out"
    with pytest.raises(InputError, match="does not exist"):
        encode([str(tmp_path / "nowhere")], str(out), demo_config(frames=8))
    assert not (out / "dataset.json").exists()
    assert encode([str(folder)], str(out), demo_config()).done == 1
