"""`convert` under the target's lock: killed, beside another writer, and beside a writer of the source."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dyntok.errors import StoreLockedError, StoreMismatchError
from dyntok.run import convert, repair
from dyntok.run.array import ArrayJob
from dyntok.run.lock import store_lock
from dyntok.store import StoreRoot, verify
from tests.support.runs import environment
from tests.support.samples import complete_store, file_bytes, make_info

FORMATS = ["webdataset", "zarr"]

KILLED = """
import os, signal
from dyntok.run import convert
from dyntok.store.care import conversion
copies, sample_of = [], conversion.sample_of
def copy(*arguments):
    copies.append(1)
    if len(copies) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample_of(*arguments)
conversion.sample_of = copy
convert({source!r}, {target!r}, format={format!r})
"""


def stores(tmp_path: Path, target_format: str) -> tuple[str, str]:
    source_format = next(name for name in FORMATS if name != target_format)
    complete_store(str(tmp_path / "source"), make_info(shard_format=source_format))
    return str(tmp_path / "source"), str(tmp_path / "target")


def result(url: str) -> dict[str, bytes]:
    return {path: data for path, data in file_bytes(StoreRoot.open(url)) if not path.startswith((".", "logs/"))}


@pytest.mark.parametrize("target_format", FORMATS)
def test_killed_in_mid_shard_and_called_again(tmp_path: Path, target_format: str) -> None:
    source, target = stores(tmp_path, target_format)
    code = KILLED.format(source=source, target=target, format=target_format)
    killed = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert any((tmp_path / "target/.tmp").iterdir()), "it was killed in mid-shard"
    report = convert(source, target, format=target_format)
    assert (report.shards, report.already) == (3, 0)
    assert not list((tmp_path / "target/.tmp").iterdir())
    convert(source, str(tmp_path / "whole"), format=target_format)
    assert result(target) == result(str(tmp_path / "whole")) and verify(target).complete


def test_two_at_once(tmp_path: Path) -> None:
    """The second is refused, and disturbs nothing of the first, which has files in the making."""
    source, target = stores(tmp_path, "zarr")

    def again(done: int, total: int) -> None:
        (tmp_path / "target/.tmp/in the making").touch()
        with pytest.raises(StoreLockedError, match="another process is writing"):
            convert(source, target, format="zarr")
        assert (tmp_path / "target/.tmp/in the making").exists()

    assert convert(source, target, format="zarr", on_progress=again).shards == 3
    assert verify(target).ok


@pytest.mark.parametrize("job", [None, ArrayJob(1, 2)])
def test_only_a_writer_of_the_target_is_in_the_way(tmp_path: Path, job: ArrayJob | None) -> None:
    source, target = stores(tmp_path, "zarr")
    with store_lock(StoreRoot.open(target, create=True), job), pytest.raises(StoreLockedError):
        convert(source, target, format="zarr")
    with store_lock(StoreRoot.open(source), job):
        assert convert(source, target, format="zarr").shards == 3


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    source, _ = stores(tmp_path, "zarr")
    other = tmp_path / "other"
    (other / ".tmp").mkdir(parents=True)
    for name in ("precious.txt", ".tmp/precious.txt"):
        (other / name).write_text("x")
    with pytest.raises(StoreMismatchError, match=r"precious\.txt"):
        convert(source, str(other), format="zarr")
    assert sorted(path.relative_to(other).as_posix() for path in other.rglob("*")) == [
        ".tmp",
        ".tmp/precious.txt",
        "precious.txt",
    ]


def test_a_repair_clears_what_a_dead_writer_left(tmp_path: Path) -> None:
    source, _ = stores(tmp_path, "zarr")
    (tmp_path / "source/.tmp").mkdir(exist_ok=True)
    (tmp_path / "source/.tmp/0123.part").write_text("x")
    (tmp_path / "source/manifest.json").write_text("torn")
    assert repair(source).ok
    assert not (tmp_path / "source/.tmp").exists() or not list((tmp_path / "source/.tmp").iterdir())
