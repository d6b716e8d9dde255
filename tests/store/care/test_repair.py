"""A repair loses nothing, mends what can be mended, and leaves to `encode` what only `encode` can make."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyntok.store import CompletionRecord, RepairReport, StoreRoot, repair, verify, write_manifest
from dyntok.store.names import is_ignored, shard_of_path
from tests.support.samples import complete_store, file_bytes, iter_records, make_info

FORMATS = ["webdataset", "zarr"]


def contents(root: StoreRoot) -> dict[str, bytes]:
    return {path: data for path, data in file_bytes(root) if not path.startswith(".tmp")}


def flip(root: StoreRoot, path: str, offset: int = -1, change: int = 1) -> None:
    data = bytearray(root.read_bytes(path))
    data[offset % len(data)] ^= change
    root.write_atomic(path, bytes(data))


def ruin(root: StoreRoot, path: str) -> None:
    """Change more than one byte."""
    flip(root, path, 40)
    flip(root, path, 60)


def done(report: RepairReport) -> dict[str, str]:
    return {item.path: item.what for item in report.mended}


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.mark.parametrize("change", [1, 64])
@pytest.mark.parametrize("offset", [0, 300, -2])
def test_a_flipped_bit_of_the_dataset_is_put_right(url: str, offset: int, change: int) -> None:
    root, _ = complete_store(url, make_info())
    before = contents(root)
    flip(root, "dataset.json", offset, change)
    report = repair(url)
    assert report.ok and not report.before.ok and report.commands == ()
    assert done(report) == {"dataset.json": "mended"}
    assert contents(root) == before and verify(url).ok


@pytest.mark.parametrize("path", ["index.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_what_follows_from_the_rest_is_made_anew(url: str, path: str, damage: str) -> None:
    root, _ = complete_store(url, make_info())
    before = contents(root)
    if damage == "flip":
        flip(root, path, 70)
    elif damage == "cut":
        root.write_atomic(path, before[path][:100])
    elif path == "index.parquet":
        root.remove(path)
    else:
        return
    report = repair(url)
    assert report.ok and report.commands == () and done(report) == {path: "made anew"}
    assert ("but for the damage" in report.mended[0].message) == (path == "manifest.json" and damage == "flip")
    after = contents(root)
    assert {name: data for name, data in after.items() if not is_ignored(name)} == before
    assert verify(url).ok


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("damage", ["flip", "gone", "record cut", "record flip"])
def test_a_damaged_shard_is_set_aside(url: str, shard_format: str, damage: str) -> None:
    root, _ = complete_store(url, make_info(shard_format=shard_format))
    before = contents(root)
    record = CompletionRecord.load(root, 1)
    assert record is not None
    victim = next(file.path for file in record.data_files if not file.path.endswith(".json"))
    if damage == "flip":
        ruin(root, victim)
    elif damage == "gone":
        root.remove(victim)
    elif damage == "record cut":
        root.write_atomic("shards/shard-000001.json", before["shards/shard-000001.json"][:50])
    else:
        flip(root, "shards/shard-000001.json")
    damaged = contents(root)
    report = repair(url)
    assert report.ok and report.set_aside == ".set-aside/0001"
    assert report.commands == (f"dyntok encode --out {url}",)
    after = contents(root)
    kept = {name.removeprefix(".set-aside/0001/"): data for name, data in after.items() if name.startswith(".set")}
    assert kept == {name: data for name, data in damaged.items() if shard_of_path(name) == 1 or name == "manifest.json"}
    assert {name for name in after if not is_ignored(name)} | kept.keys() == damaged.keys()
    checked = verify(url)
    assert checked.ok and not checked.complete
    again = repair(url)
    assert again.ok and not again.mended and contents(root) == after, "a second repair has nothing to do"


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_repair_that_is_cut_short_leaves_no_record_without_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str
) -> None:
    """It dies after its first file, its second, ..."""
    move = StoreRoot.move
    for most in range(3):
        root, _ = complete_store(str(tmp_path / str(most)), make_info(shard_format=shard_format))
        ruin(root, max(root.sizes("shards"), key=root.size))
        moved: list[str] = []

        def some(root: StoreRoot, path: str, to: str, most: int = most, moved: list[str] = moved) -> None:
            if len(moved) == most:
                raise KeyboardInterrupt
            moved.append(path)
            move(root, path, to)

        monkeypatch.setattr(StoreRoot, "move", some)
        with pytest.raises(KeyboardInterrupt):
            repair(str(tmp_path / str(most)))
        monkeypatch.undo()
        assert len(moved) == most
        for record in iter_records(root):
            assert all(root.exists(file.path) for file in record.files)


def test_what_was_set_aside_goes_when_the_store_is_sound(url: str) -> None:
    root, _ = complete_store(url, make_info())
    whole = contents(root)
    ruin(root, "shards/shard-000000.tar")
    repair(url)
    for path, data in whole.items():
        root.write_atomic(path, data)
    checked = verify(url)
    assert checked.ok and any(".set-aside" in note for note in checked.notes)
    report = repair(url)
    assert done(report) == {".set-aside": "removed"} and contents(root) == whole
    assert verify(url).notes == ()


def test_several_repairs_have_folders_of_their_own(url: str) -> None:
    root, _ = complete_store(url, make_info())
    whole = contents(root)
    for number in (1, 2):
        ruin(root, "shards/shard-000000.tar")
        assert repair(url).set_aside == f".set-aside/000{number}"
        for path, data in whole.items():
            root.write_atomic(path, data)


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("path", ["notes.txt", "shards/shard-000009.tar", "shards/shard-000000.zarr/tokens/c/9/0"])
def test_superfluous_files_are_set_aside_and_no_more(url: str, path: str, shard_format: str) -> None:
    root, _ = complete_store(url, make_info(shard_format=shard_format))
    before = contents(root)
    root.write_atomic(path, b"x")
    report = repair(url)
    assert report.ok and done(report) == {path: "set aside"} and report.commands == ()
    after = contents(root)
    assert after.pop(f".set-aside/0001/{path}") == b"x" and after == before
    assert verify(url).ok


@pytest.mark.parametrize(
    ("path", "gone", "command"),
    [
        ("plan.parquet", {"plan.parquet", "manifest.json"}, "dyntok encode INPUT... --out {url}"),
        (
            "row_marker.safetensors",
            {"row_marker.safetensors", "manifest.json"},
            "dyntok encode --out {url}",
        ),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_what_only_encode_can_make(url: str, path: str, gone: set[str], command: str, damage: str) -> None:
    root, _ = complete_store(url, make_info())
    before = contents(root)
    if damage == "cut":
        root.write_atomic(path, before[path][:-9])
    elif damage == "flip":
        flip(root, path)
    else:
        root.remove(path)
    report = repair(url)
    assert report.ok and report.commands == (command.format(url=url),)
    left = {name for name in contents(root) if not is_ignored(name)}
    assert before.keys() - left == gone


@pytest.mark.parametrize("damage", ["ruin", "gone"])
def test_a_lost_dataset_is_said_to_be_lost(url: str, damage: str) -> None:
    root, _ = complete_store(url, make_info())
    if damage == "ruin":
        ruin(root, "dataset.json")
    else:
        root.remove("dataset.json")
    before = contents(root)
    report = repair(url)
    assert not report.ok and done(report) == {"dataset.json": "left"}
    assert contents(root) == before


def test_damage_behind_a_damaged_dataset_is_not_overlooked(url: str) -> None:
    root, _ = complete_store(url, make_info())
    flip(root, "dataset.json", 30)
    ruin(root, "shards/shard-000000.tar")
    flip(root, "index.parquet", 70)
    report = repair(url)
    assert done(report)["dataset.json"] == "mended"
    assert done(report)["shards/shard-000000.tar"] == "set aside"
    assert report.ok and verify(url).ok


def test_an_incomplete_store_is_mended_as_far_as_it_goes(url: str) -> None:
    root, _ = complete_store(url, make_info())
    root.remove("manifest.json")
    root.remove("index.parquet")
    before = contents(root)
    flip(root, "dataset.json", 30)
    assert done(repair(url)) == {"dataset.json": "mended"} and contents(root) == before
    flip(root, "shards/shard-000001.tar", 600)
    report = repair(url)
    names = [f"shards/shard-000001.{suffix}" for suffix in ("json", "stats", "tar")]
    assert done(report) == dict.fromkeys(names, "set aside")
    assert verify(url).ok


def test_a_shard_that_nobody_planned_goes(url: str) -> None:
    from tests.support.samples import make_plan, write_shard

    info = make_info()
    root, _ = complete_store(url, info)
    write_shard(root, info, make_plan(9, ["x"]))
    write_manifest(root)
    report = repair(url)
    assert report.ok and not root.exists("shards/shard-000009.json") and verify(url).ok
