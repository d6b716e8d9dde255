"""`verify` finds every change, and nothing where there is none."""

from __future__ import annotations

import io
import json
import re
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dyntok.errors import StoreError
from dyntok.store import (
    CompletionRecord,
    DatasetInfo,
    StoreRoot,
    VerifyReport,
    build_index,
    verify,
    write_manifest,
)
from dyntok.store.care.findings import FINDING_KINDS
from dyntok.store.care.shard_checks import shard_problems
from dyntok.store.names import shard_data_path, shard_of_path, shard_of_record, shard_of_statistics
from dyntok.store.plan_rows import plan_rows
from dyntok.store.signed import digest_file, sign
from dyntok.store.zarr.format import level_columns
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
    info = make_info(shard_format=shard_format, layout=layout, dtype="int8" if layout == "explicit" else "bfloat16")
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


# where the damage is -----------------------------------------------------------------------------------------


def touched_by_reading(root: StoreRoot, shard: int) -> set[str]:
    """Ids of the videos of a shard that do not read as they should; digests are looked at by nobody here."""
    info, record = DatasetInfo.load(root), CompletionRecord.load(root, shard)
    assert record is not None
    return {video for _, video, _ in shard_problems(root, info, record) if video}


def expected_video(root: StoreRoot, path: str, offset: int) -> str:
    """Of a tar, told from the headers alone: the video whose members, headers or padding hold the byte."""
    record = CompletionRecord.load(root, shard_of_path(path) or 0)
    assert record is not None
    name = ""
    with tarfile.open(fileobj=io.BytesIO(root.read_bytes(path))) as tar:
        for member in tar:
            if member.offset <= offset:
                name = member.name.split(".")[0]
    return next(row.id for row in record.done if row.key == name)


FILES_OF_A_SHARD = re.compile(r"shards/shard-[0-9]{6}\.(tar$|zarr/)")


def flip_campaign(
    folder: Path, shard_format: str, layout: str, flips: int, seed: int, deep_every: int = 1
) -> dict[str, int]:
    """Flip a byte, verify, flip it back. Every flip is named by file, by video where it is in a shard's data, and
    with the commands that mend it. Returns how many flips hit each kind of file."""
    root, _ = complete_store(str(folder), make_info(shard_format=shard_format, layout=layout))
    planned: dict[int | None, set[str]] = {}
    for entry in plan_rows(root):
        planned.setdefault(entry.shard, set()).add(entry.id)
    rng = np.random.default_rng(seed)
    files = [(path, data) for path, data in file_bytes(root) if not path.startswith(".tmp")]
    # The small ones would hardly be hit by bytes alone.
    weights = np.array([len(data) ** 0.5 for _, data in files])
    hits: dict[str, int] = {}
    for number in range(flips):
        path, data = files[int(rng.choice(len(files), p=weights / weights.sum()))]
        offset = int(rng.integers(len(data)))
        changed = bytearray(data)
        changed[offset] ^= int(rng.integers(1, 256))
        video = expected_video(root, path, offset) if path.endswith(".tar") else ""
        (folder / path).write_bytes(changed)
        deep = number % deep_every == 0
        report = verify(str(folder), deep=deep)
        found = [finding for finding in report.findings if finding.path == path]
        assert found, (path, offset)
        assert report.repair[0] == f"dyntok verify {folder} --repair"
        of_a_shard = shard_of_path(path) is not None and shard_of_statistics(path) is None
        assert report.repair[1:] == ((f"dyntok encode --out {folder}",) if of_a_shard else ())
        shard = shard_of_path(path)
        assert {finding.path for finding in report.findings if finding.path != path} <= (
            {shard_data_path(shard, shard_format)} if shard is not None else set()
        ), "what is sound is not blamed"
        if shard_of_record(path) is not None:
            assert {video for finding in found for video in finding.videos} == planned[shard]
        if FILES_OF_A_SHARD.match(path):
            named = {video for finding in found for video in finding.videos}
            assert named, (path, offset, found)
            if video:
                assert named == {video}, (path, offset, found)
            elif deep:
                assert touched_by_reading(root, shard_of_path(path) or 0) <= named, (path, offset, found)
        (folder / path).write_bytes(data)
        kind = "shard data" if FILES_OF_A_SHARD.match(path) else path
        hits[kind] = hits.get(kind, 0) + 1
    assert verify(str(folder)).ok
    return hits


@pytest.mark.parametrize(
    ("shard_format", "layout"), [("webdataset", "nested"), ("webdataset", "explicit"), ("zarr", "nested")]
)
def test_flips_are_named_by_file_video_and_remedy(tmp_path: Path, shard_format: str, layout: str) -> None:
    flip_campaign(tmp_path, shard_format, layout, 40, seed=1, deep_every=1 if shard_format != "zarr" else 8)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("shard_format", "layout", "flips"),
    [
        ("webdataset", "nested", 600),
        ("webdataset", "explicit", 400),
        ("zarr", "nested", 600),
        ("zarr", "explicit", 400),
    ],
)
def test_two_thousand_flips(tmp_path: Path, shard_format: str, layout: str, flips: int) -> None:
    hits = flip_campaign(tmp_path, shard_format, layout, flips, seed=7, deep_every=1 if shard_format != "zarr" else 10)
    print(shard_format, layout, hits)
    assert {"shard data", "index.parquet", "plan.parquet", "dataset.json", "manifest.json"} <= hits.keys()
    assert any(path.endswith("0.json") for path in hits), "no record was hit"


def test_damage_of_several_videos_names_them_all(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info())
    path = "shards/shard-000000.tar"
    record = CompletionRecord.load(root, 0)
    assert record is not None
    first, second = record.done
    data = root.read_bytes(path)
    for change in (
        lambda d: d[: first.offset] + b"\xff" + d[first.offset + 1 : -1] + b"\1",
        lambda d: d[: first.offset + 9] + d[first.offset + 8 :],
        lambda d: d[: len(d) // 4],
    ):
        root.write_atomic(path, change(data))
        found = [f for f in verify(str(tmp_path), deep=False).findings if f.path == path]
        named = {video for finding in found for video in finding.videos}
        assert first.id in named and (named == {first.id, second.id} or change(data)[-1:] == b"\1")
    root.remove(path)
    (finding,) = (f for f in verify(str(tmp_path), deep=False).findings if f.kind == "missing")
    assert finding.videos == (first.id, second.id)


def test_records_without_checksums_are_read(tmp_path: Path) -> None:
    """Damage is found as ever; where in the tar it is, the look inside has to tell."""
    root, _ = complete_store(str(tmp_path), make_info())
    record = CompletionRecord.load(root, 0)
    assert record is not None
    content = json.loads(record.to_bytes())
    for row in content["videos"]:
        assert len(row["checksum"]) == (32 if row["status"] == "done" else 0)
        del row["checksum"]
    del content["digest"]
    root.write_atomic("shards/shard-000000.json", sign(content))
    write_manifest(root)
    again = CompletionRecord.load(root, 0)
    assert again is not None and {row.checksum for row in again.videos} == {""}
    assert verify(str(tmp_path)).ok
    assert not any(row.checksum for row in replace(again).done)


def test_chunks_of_a_zarr_array_are_told_apart(tmp_path: Path) -> None:
    """Long enough videos that the tokens fill several chunks: only those in the flipped one are named."""
    info = make_info(shard_format="zarr", token_dim=65536)
    root = StoreRoot.open(str(tmp_path))
    info.save(root)
    entries = make_plan(0, ["a", "b", "c", "d"])
    write_plan(root, entries)
    record, _ = write_shard(root, info, entries, frames=1, kind="none_merge")
    path = "shards/shard-000000.zarr/tokens/c/0/0"
    data = root.read_bytes(path)
    spec = next(spec for spec in level_columns(info) if spec.name == "tokens")
    tokens = np.cumsum([0, *(row.tokens["0.60"] for row in record.done)])
    assert spec.chunk_rows == 8 and tokens.tolist() == [0, 15, 30, 45, 60]
    index = np.frombuffer(data[-64 * 16 - 4 : -4], "<u8").reshape(64, 2)
    for chunk, videos in ((0, ("a",)), (1, ("a", "b")), (4, ("c",)), (7, ("d",))):
        changed = bytearray(data)
        changed[int(index[chunk][0]) + 5] ^= 1
        root.write_atomic(path, bytes(changed))
        (finding,) = verify(str(tmp_path), deep=False).findings
        assert finding.videos == videos, chunk
        assert f"array tokens, rows {chunk * 8} to {chunk * 8 + 7}" in finding.message
    changed = bytearray(data)
    changed[-30] ^= 1
    root.write_atomic(path, bytes(changed))
    (finding,) = verify(str(tmp_path), deep=False).findings
    assert finding.videos == ("a", "b", "c", "d")


def test_an_edge_belongs_to_the_videos_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefix sums in chunks of one: the third says where the second video ends and the third begins."""
    monkeypatch.setattr("dyntok.store.zarr.format._CHUNK_BYTES", 8)
    info = make_info(shard_format="zarr")
    root = StoreRoot.open(str(tmp_path))
    info.save(root)
    entries = make_plan(0, ["a", "b", "c", "d"])
    write_plan(root, entries)
    write_shard(root, info, entries)
    path = "shards/shard-000000.zarr/video_splits/c/0"
    data = root.read_bytes(path)
    index = np.frombuffer(data[-64 * 16 - 4 : -4], "<u8").reshape(64, 2)
    for chunk, videos in ((0, ("a",)), (1, ("a", "b")), (2, ("b", "c")), (4, ("d",))):
        changed = bytearray(data)
        changed[int(index[chunk][0]) + 5] ^= 1
        root.write_atomic(path, bytes(changed))
        (finding,) = verify(str(tmp_path), deep=False).findings
        assert finding.videos == videos, chunk


def test_extra_files_of_a_shard_are_found_before_the_store_is_complete(tmp_path: Path) -> None:
    root, _ = complete_store(str(tmp_path), make_info(shard_format="zarr"))
    root.remove("manifest.json")
    path = "shards/shard-000001.zarr/tokens/c/7/0"
    root.write_atomic(path, b"x")
    report = verify(str(tmp_path), deep=False)
    assert [(finding.kind, finding.path) for finding in report.findings] == [("extra", path)]


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
@pytest.mark.parametrize("path", ["shards/shard-000003.tar", "shards/shard-000000.zarr/tokens/c/7/0", "notes.txt"])
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
    for note in report.notes[:2]:
        assert note.startswith("shards/shard-000001.") and "not committed" in note
    assert report.notes[2:] == ("incomplete: 2 of 3 shards are not written yet",)
    for path in (
        record.files[-1].path,
        record.data_files[-1].path,
        "shards/shard-000000.json",
        "dataset.json",
        "plan.parquet",
    ):
        data = root.read_bytes(path)
        changed = bytearray(data)
        changed[len(data) // 2] ^= 4
        root.write_atomic(path, bytes(changed))
        report = verify(str(tmp_path))
        assert not report.ok and not report.complete, path
        root.write_atomic(path, data)
    root.remove(record.data_files[-1].path)
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
def test_records_that_lie_are_found(tmp_path: Path, shard_format: str, change: dict[str, object], message: str) -> None:
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
    monkeypatch.setattr("dyntok.store.writer.check_sample", lambda sample, info: None)
    for module in ("tar.writer", "zarr.writer"):
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
        ("explicit", last_level(group_size=rotated), "group_size contradicts"),
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
    from dyntok.store.tar.stream import tar_header

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
    index = pq.read_table(tmp_path / "index.parquet")
    moved = index.set_column(index.schema.names.index("offset"), index.schema.field("offset"), index["nbytes"])
    pq.write_table(moved, tmp_path / "index.parquet")
    write_manifest(root)
    report = verify(str(tmp_path))
    assert [(f.kind, f.path) for f in report.findings] == [("index", "index.parquet")]
    assert "the column offset" in report.findings[0].message
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
