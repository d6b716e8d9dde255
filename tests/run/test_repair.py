"""Flip, verify, run the commands that it prints: the store is the one it was."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from dyntok.config import EncodeConfig
from dyntok.errors import StoreError, StoreMismatchError
from dyntok.run import encode, finalize
from dyntok.store import DatasetInfo, StoreRoot, verify
from tests.support.runs import command, demo_config, environment, result_digests, run_command

CLIPS = ("bikes.mp4", "carphone_pristine.mp4")
FLAGS = ("--model", "demo", "--frames", "4", "--batch-size", "4", "--shard-size", "100KB", "--device", "cpu")


@pytest.fixture(scope="module", params=["webdataset", "zarr"])
def original(request: pytest.FixtureRequest, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of a video each, and a third whose only video failed; its inputs lie beside it."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "in").mkdir()
    for name in CLIPS:
        shutil.copy(clip_folder / name, folder / "in")
    (folder / "in" / "x.mp4").write_text("no film")
    config = demo_config(shard_size="100KB", format=request.param, decode_workers=1)
    encode([str(folder / "in")], str(folder / "out"), config)
    return folder


def every_byte(out: Path) -> dict[str, bytes]:
    hidden = (".set-aside", ".tmp", "logs", ".lock")
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in hidden
    }


def flip(path: Path, *offsets: int) -> None:
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset % len(data)] ^= 0x10
    path.write_bytes(data)


def run_printed(text: str) -> None:
    """Run a command as it was printed, in the words of a shell."""
    words = shlex.split(text)
    assert words[0] == "dyntok"
    done = run_command(*words[1:])
    assert done.returncode in (0, 3), done.stderr


def victims(out: Path, kind: str) -> tuple[str, tuple[int, ...]]:
    """A file of the store and where to flip it, so that nothing but what `kind` says can mend it."""
    big = max((p for p in (out / "shards").rglob("*") if p.suffix != ".json"), key=_size)
    return {
        "shard": (big.relative_to(out).as_posix(), (700, 900)),
        "record": ("shards/shard-000001.json", (100, 200)),
        "index": ("index.parquet", (50, 90)),
        "manifest": ("manifest.json", (100,)),
        "dataset": ("dataset.json", (100,)),
        "marker": ("row_marker.safetensors", (300, 310)),
    }[kind]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["shard", "record", "index", "manifest", "dataset", "marker"])
def test_flip_verify_and_the_printed_commands(original: Path, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    before, digests = every_byte(out), result_digests(out)
    path, offsets = victims(out, kind)
    flip(out / path, *offsets)
    damaged = (out / path).read_bytes()

    found = run_command("verify", out, "--json")
    assert found.returncode == 4
    report = json.loads(found.stdout)
    finding = next(item for item in report["findings"] if item["path"] == path)
    if kind == "shard":
        assert finding["video"] in CLIPS and set(finding["videos"]) <= set(CLIPS)
    assert finding["repair"] and report["repair"]
    for line in report["repair"]:
        assert f"`{line}`" in found.stderr
        run_printed(line)
    mended = run_command("verify", out, "--json")
    report = json.loads(mended.stdout)
    if not report["complete"]:  # what the repair could not mend, encode has to make: the repair says so
        run_printed(f"dyntok encode --out {shlex.quote(str(out))}")
    assert result_digests(out) == digests
    after = every_byte(out)
    assert after == before
    assert verify(str(out)).ok
    if (out / ".set-aside").exists():
        kept = [p.read_bytes() for p in (out / ".set-aside").rglob("*") if p.is_file()]
        assert damaged in kept, "what was damaged is kept"
        assert run_command("verify", out, "--repair").returncode == 0
        assert not any(p.is_file() for p in (out / ".set-aside").rglob("*"))
    assert every_byte(out) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plan_that_is_lost_is_made_again_from_the_inputs(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    before = every_byte(out)
    (out / "plan.parquet").write_bytes(b"not a plan at all")
    repaired = run_command("verify", out, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert f"dyntok encode INPUT... --out {out}" in repaired.stderr
    shard_format = "zarr" if (out / "shards" / "shard-000000.zarr").exists() else "webdataset"
    done = run_command("encode", original / "in", "--out", out, *FLAGS, "--format", shard_format)
    assert done.returncode == 3, done.stderr
    after = every_byte(out)
    same = {path for path in before if path.startswith("shards/") or path in ("plan.parquet", "index.parquet")}
    assert {path: after[path] for path in same} == {path: before[path] for path in same}
    assert verify(str(out)).ok


def config_of(out: Path, **settings: Any) -> EncodeConfig:
    shard_format = DatasetInfo.load(StoreRoot.open(str(out))).shard_format
    return demo_config(**{"shard_size": "100KB", "format": shard_format, "decode_workers": 1, **settings})


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_encode_writes_the_row_marker_of_a_complete_store_anew(original: Path, damage: str, tmp_path: Path) -> None:
    """And no shard: the model is loaded for the marker alone."""
    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    before = every_byte(out)
    record = out / "shards" / "shard-000000.json"
    inode = record.stat().st_ino
    if damage == "gone":
        (out / "row_marker.safetensors").unlink()
    else:
        flip(out / "row_marker.safetensors", 300, 310)
    assert not verify(str(out)).ok
    report = encode([], str(out), config_of(out))
    assert report.already == report.videos == 3 and record.stat().st_ino == inode
    assert every_byte(out) == before and verify(str(out)).ok


def test_a_store_is_not_finished_without_its_row_marker(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    (out / "row_marker.safetensors").unlink()
    with pytest.raises(StoreError, match="row_marker") as caught:
        finalize(str(out))
    assert caught.value.hint == f"run `dyntok encode --out {out}` to write it"


def test_a_lost_plan_lets_no_other_settings_in(original: Path, tmp_path: Path) -> None:
    """The shards that are left were made with those of dataset.json."""
    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    (out / "plan.parquet").unlink()
    before = every_byte(out)
    with pytest.raises(StoreMismatchError, match="other settings: frames"):
        encode([str(original / "in")], str(out), config_of(out, frames=5))
    assert every_byte(out) == before
    other = config_of(out, fail_fast=True, max_attempts=2)
    assert encode([str(original / "in")], str(out), other).already == 3
    assert every_byte(out)["dataset.json"] == before["dataset.json"] and verify(str(out)).ok


def test_a_repair_takes_the_lock(original: Path, tmp_path: Path) -> None:
    from dyntok.errors import StoreLockedError
    from dyntok.run import repair
    from dyntok.run.lock import store_lock

    out = tmp_path / "out"
    shutil.copytree(original / "out", out)
    flip(out / "manifest.json", 100)
    with store_lock(StoreRoot.open(out)), pytest.raises(StoreLockedError):
        repair(str(out))
    assert repair(str(out)).ok and verify(str(out)).ok


def test_the_helpers_run_this_checkout() -> None:
    assert command("verify")[1:3] == ["-m", "dyntok_cli"] and "PYTHONPATH" in environment()
