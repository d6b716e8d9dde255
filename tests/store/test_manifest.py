"""The manifest: written over what the records name, and only where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyntok.errors import DamageError
from dyntok.store import Manifest, write_manifest
from dyntok.store.signed import digest_file
from tests.support.samples import complete_store, make_info


def test_it_names_every_file_but_itself_and_what_belongs_to_running(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    for path in ("logs/run.jsonl", ".tmp/x.part", ".lock", ".set-aside/0001/plan.parquet"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    written = write_manifest(root)
    assert written == Manifest.load(root)
    expected = [path for path in root.list() if not path.startswith((".", "logs/")) and path != "manifest.json"]
    assert list(written.files) == [digest_file(root, path) for path in expected]


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
@pytest.mark.parametrize("damage", ["short", "gone"])
def test_no_store_is_called_complete_whose_shards_are_not_as_they_were_written(
    tmp_path: Path, shard_format: str, damage: str
) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    root.remove("manifest.json")
    path = next(path for path in reversed(root.list("shards")) if not path.endswith(".json"))
    data = root.read_bytes(path)
    root.remove(path)
    if damage == "short":
        root.write_atomic(path, data[:-1])
    with pytest.raises(DamageError, match=f"{len(data)} were written") as caught:
        write_manifest(root)
    assert path in str(caught.value) and "same command again" in str(caught.value.hint)
    assert Manifest.load(root) is None
