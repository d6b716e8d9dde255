"""`verify` finds every change, and nothing where there is none."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyntok.errors import StoreError
from dyntok.store import (
    FINDING_KINDS,
    CompletionRecord,
    DatasetInfo,
    StoreRoot,
    VerifyReport,
    build_index,
    verify,
    write_manifest,
)
from dyntok.store.index_build import rewrite_locations
from dyntok.store.plan_rows import plan_rows
from dyntok.store.signed import digest_file
from tests.support.samples import complete_store, file_bytes, make_info, make_plan, write_plan, write_shard

FORMATS = ["webdataset", "zarr"]
# A Zarr shard is some twenty small files; going through them all takes its time.
ALL_FILES = ["webdataset", pytest.param("zarr", marks=pytest.mark.slow)]


def kinds(report: VerifyReport) -> set[str]:
    found = {finding.kind for finding in report.findings}
    assert found <= FINDING_KINDS.keys()
    assert report.ok == (not found)
    return found


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("layout", ["nested", "explicit"])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_sound_store_has_no_findings(tmp_path: Path, shard_format: str, layout: str, place: str) -> None:
    url = str(tmp_path) if place == "local" else f"memory://{uuid.uuid4().hex}"
    info = make_info(
        shard_format=shard_format, layout=layout, dtype="int8" if layout == "explicit" else "bfloat16"
    )
    root, samples = complete_store(url, info)
    progress: list[tuple[int, int]] = []
    report = verify(url, jobs=3, on_progress=lambda done, total: progress.append((done, total)))
    assert report.ok and report.complete, report.findings
    assert (report.shards, report.done, report.failed) == (3, len(samples), 2)
    assert report.notes == ()
    sizes = {path: size for path, size in root.sizes().items() if not path.startswith(".tmp")}
    assert report.files == len(sizes) - 1
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert progress[-1][0] == report.bytes == sum(sizes.values()) - sizes["manifest.json"]
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


@pytest.mark.parametrize("shard_format", ALL_FILES)
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, shard_format: str) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    rng = np.random.default_rng(5)
    for path, data in list(file_bytes(root)):
        if path.startswith(".tmp"):
            continue
        offsets = {
            0,
            len(data) - 1,
            *rng.integers(0, len(data), 2 if shard_format == "zarr" else 12).tolist(),
        }
        for offset in sorted(offsets):
            changed = bytearray(data)
            changed[offset] ^= 1 << int(rng.integers(8))
            (tmp_path / path).write_bytes(changed)
            report = verify(str(tmp_path), deep=False)
            assert path in {finding.path for finding in report.findings}, (path, offset)
        (tmp_path / path).write_bytes(data)
    assert verify(str(tmp_path)).ok


@pytest.mark.parametrize("shard_format", ALL_FILES)
def test_deep_looks_survive_any_damage(tmp_path: Path, shard_format: str) -> None:
    """Whatever a file is turned into, the report names it; nothing raises."""
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format, layout="explicit"))
    rng = np.random.default_rng(6)
    for path, data in list(file_bytes(root)):
        if path.startswith(".tmp") or "/shard-000001" in path or "/shard-000002" in path:
            continue
        for damaged in (b"", data[: len(data) // 2], rng.bytes(len(data))):
            (tmp_path / path).write_bytes(damaged)
            assert path in {finding.path for finding in verify(str(tmp_path)).findings}
        (tmp_path / path).write_bytes(data)


@pytest.mark.parametrize("shard_format", ALL_FILES)
def test_every_missing_file_is_found(tmp_path: Path, shard_format: str) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    for path, data in list(file_bytes(root)):
        if path.startswith(".tmp") or path == "manifest.json":
            continue
        (tmp_path / path).unlink()
        report = verify(str(tmp_path), deep=False)
        assert path in {finding.path for finding in report.findings} and "missing" in kinds(report)
        (tmp_path / path).write_bytes(data)


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize(
    "path", ["shards/shard-000003.tar", "shards/shard-000000.zarr/tokens/c/7/0", "notes.txt"]
)
def test_extra_files_are_found(tmp_path: Path, shard_format: str, path: str) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    root.write_atomic(path, b"x")
    report = verify(str(tmp_path))
    assert [(finding.kind, finding.path) for finding in report.findings] == [("extra", path)]


def test_logs_locks_and_temporary_files_are_nobodys_business(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    root.write_atomic("logs/run.jsonl", b"{}")
    root.write_atomic(".lock", b"")
    (root.scratch_dir() / "left").write_bytes(b"x")
    assert verify(str(tmp_path)).ok


@pytest.mark.parametrize("shard_format", FORMATS)
def test_a_deleted_shard_is_found_even_without_its_record(tmp_path: Path, shard_format: str) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    for path in root.list("shards"):
        if "shard-000001" in path:
            root.remove(path)
    assert {f.path for f in verify(str(tmp_path)).findings} >= {"shards/shard-000001.json"}
    write_manifest(root)
    report = verify(str(tmp_path))
    assert [(f.kind, f.path) for f in report.findings] == [("missing", "shards")]


def test_a_shard_that_nobody_planned_is_found(tmp_path: Path) -> None:
    info = make_info()
    root, _ = complete_store(str(tmp_path), info)
    write_shard(root, info, make_plan(9, ["x"]))
    write_manifest(root)
    assert kinds(verify(str(tmp_path))) == {"extra"}


def test_a_record_of_another_plan_is_found(tmp_path: Path) -> None:
    info = make_info()
    root, _ = complete_store(str(tmp_path), info)
    write_shard(root, info, make_plan(1, ["other.mp4", "late.mp4"]))
    write_manifest(root)
    report = verify(str(tmp_path))
    assert [(f.kind, f.path) for f in report.findings] == [("plan", "shards/shard-000001.json")]


# an incomplete store -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_format", FORMATS)
def test_an_incomplete_store_is_checked_as_far_as_it_goes(tmp_path: Path, shard_format: str) -> None:
    info = make_info(shard_format=shard_format)
    root = StoreRoot.open(str(tmp_path))
    with pytest.raises(StoreError, match="not a dyntok store"):
        verify(str(tmp_path))
    info.save(root)
    assert verify(str(tmp_path)).notes == ("incomplete: the store has no plan yet",)
    entries = make_plan(0, ["a"]) + make_plan(1, ["b"]) + make_plan(2, ["c"])
    write_plan(root, entries)
    record, _ = write_shard(root, info, entries[:1])
    write_shard(root, info, entries[1:2])
    root.remove("shards/shard-000001.json")
    report = verify(str(tmp_path))
    assert report.ok and not report.complete and report.shards == 1
    assert report.notes[0].startswith("shards/shard-000001.") and "not committed" in report.notes[0]
    assert report.notes[1] == "incomplete: 2 of 3 shards are not written yet"
    for path in (record.files[-1].path, "shards/shard-000000.json", "dataset.json", "plan.parquet"):
        data = root.read_bytes(path)
        changed = bytearray(data)
        changed[len(data) // 2] ^= 4
        root.write_atomic(path, bytes(changed))
        report = verify(str(tmp_path))
        assert not report.ok and not report.complete, path
        root.write_atomic(path, data)
    root.remove(record.files[-1].path)
    assert kinds(verify(str(tmp_path))) >= {"missing"}


# parts that contradict each other under valid digests --------------------------------------------------------


def resign(root: StoreRoot, record: CompletionRecord) -> None:
    """Give a record and everything above it fresh digests, as someone who knows the format could."""
    files = tuple(digest_file(root, file.path) for file in record.files)
    replace(record, files=files).save(root)
    build_index(root, plan_rows(root))
    write_manifest(root)


LIES = [
    ({"tokens": {"0.40": 1, "0.50": 2, "0.60": 3}}, "token counts"),
    ({"patches": 7}, "7 patches"),
    ({"frames": 99}, "99|similarity|names"),
    ({"id": "somebody else"}, "names"),
]
TAR_LIES = [({"offset": 0}, "byte 0|leads|lead"), ({"offset": 10**9}, "lead"), ({"nbytes": 9}, "begin")]


@pytest.mark.parametrize(
    ("shard_format", "change", "message"),
    [("webdataset", *lie) for lie in LIES + TAR_LIES] + [("zarr", *lie) for lie in LIES],
)
def test_records_that_lie_are_found(
    tmp_path: Path, shard_format: str, change: dict[str, object], message: str
) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format=shard_format))
    record = CompletionRecord.load(root, 0)
    assert record is not None
    resign(root, replace(record, videos=(replace(record.videos[0], **change), *record.videos[1:])))
    report = verify(str(tmp_path))
    findings = [finding for finding in report.findings if finding.kind == "sample"]
    assert findings and findings[0].path.startswith("shards/shard-000000.")
    assert any(re.search(message, finding.message) for finding in findings), findings
    assert verify(str(tmp_path), deep=False).ok


def forged_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shard_format: str,
    layout: str,
    forge: Callable[..., object],
) -> VerifyReport:
    """A store by a writer that does not check, of samples that `forge` changed; all digests are valid."""
    from tests.support import samples as support

    original = support.make_sample
    monkeypatch.setattr(support, "make_sample", lambda *args, **kwargs: forge(original(*args, **kwargs)))
    for module in ("tar_writer", "zarr_writer"):
        monkeypatch.setattr(f"dyntok.store.{module}.check_sample", lambda sample, info: None)
        monkeypatch.setattr(f"dyntok.store.{module}.checked_chunks", lambda sample, level: iter(level.tokens))
    complete_store(str(tmp_path), make_info(shard_format=shard_format, layout=layout))
    return verify(str(tmp_path))


def first_level(**changes: object) -> Callable[..., object]:
    def forge(sample):
        made = {name: change(getattr(sample.levels[0], name)) for name, change in changes.items()}
        return replace(sample, levels=(replace(sample.levels[0], **made), *sample.levels[1:]))

    return forge


def last_level(**changes: object) -> Callable[..., object]:
    def forge(sample):
        made = {name: change(getattr(sample.levels[-1], name)) for name, change in changes.items()}
        return replace(sample, levels=(*sample.levels[:-1], replace(sample.levels[-1], **made)))

    return forge


def rotated(sizes):
    return np.roll(sizes, 1)


def not_finite(chunks):
    return [np.full_like(chunk, 0x7FC0) for chunk in chunks]


def shifted(splits):
    changed = splits.copy()
    changed[1:-1] = np.clip(changed[1:-1] + 1, 0, splits[-1])
    return changed


def flat_map(sample):
    similarity = np.where(np.isinf(sample.similarity), sample.similarity, np.float32(0.55))
    return replace(sample, similarity=similarity)


def nan_map(sample):
    similarity = sample.similarity.copy()
    similarity[0, 0, 1] = np.nan
    return replace(sample, similarity=similarity)


@pytest.mark.parametrize("shard_format", ALL_FILES)
@pytest.mark.parametrize(
    ("layout", "forge", "message"),
    [
        ("nested", first_level(group_size=rotated), "group_size contradicts"),
        ("nested", first_level(row_splits=shifted), "row.splits"),
        ("nested", first_level(tokens=not_finite), "not finite"),
        ("nested", flat_map, "similarity map gives"),
        ("nested", nan_map, "outside"),
        ("explicit", last_level(group_size=rotated), "not nested|group_size contradicts"),
        ("explicit", last_level(tokens=not_finite), "threshold 0.4: a token is not finite"),
    ],
)
def test_parts_that_contradict_each_other_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str, layout: str, forge, message: str
) -> None:
    report = forged_store(tmp_path, monkeypatch, shard_format, layout, forge)
    assert kinds(report) == {"sample"}
    assert any(re.search(message, finding.message) for finding in report.findings), report.findings
    assert {finding.video for finding in report.findings} >= {"b/ü.mp4"}
    assert verify(str(tmp_path), deep=False).ok


def test_tar_members_beside_the_record_are_found(tmp_path: Path) -> None:
    from dyntok.store.tarstream import tar_header

    root, _ = complete_store(str(tmp_path), make_info())
    record = CompletionRecord.load(root, 0)
    assert record is not None
    path = record.files[0].path
    data = root.read_bytes(path)
    extra = tar_header("extra.json", 2) + b"{}" + bytes(510)
    for changed in (data[:-1024] + extra + bytes(1024), data + b"hidden" + bytes(506), data[:-512]):
        root.write_atomic(path, changed)
        resign(root, record)
        report = verify(str(tmp_path))
        assert {finding.kind for finding in report.findings} == {"shard"}, report.findings


def test_an_index_that_lies_is_found(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    places = {shard: (np.full(5, 512), np.full(5, 9)) for shard in range(3)}
    rewrite_locations(root, root, places)
    write_manifest(root)
    report = verify(str(tmp_path))
    assert [(f.kind, f.path) for f in report.findings] == [("index", "index.parquet")]
    assert "nbytes" in report.findings[0].message or "offset" in report.findings[0].message
    build_index(root, list(plan_rows(root))[:-2])
    write_manifest(root)
    assert kinds(verify(str(tmp_path))) == {"index"}


def test_a_dataset_that_lies_is_found(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    info = DatasetInfo.load(root)
    for change in ({"token_dim": 9}, {"dtype": "float16"}, {"layout": "explicit"}, {"shard_format": "zarr"}):
        replace(info, **change).save(root)
        write_manifest(root)
        assert not verify(str(tmp_path)).ok, change
