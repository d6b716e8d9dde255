from __future__ import annotations

import json
import pickle
import random
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dyntok.errors import InputError
from dyntok.load import Annotations, open_annotations

ROWS = [
    {"id": 1, "video": "b/ü.mp4", "question": "?", "n": 1.5},
    {"id": 2, "video": "a.mp4", "question": "?\n", "n": None},
    {"id": 3, "video": "a.mp4", "question": "é", "n": 2.5},
]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_rows_come_back_in_any_order_and_any_process(tmp_path: Path, suffix: str) -> None:
    notes = open_annotations(written(tmp_path, suffix))
    assert notes.ids.to_pylist() == ["b/ü.mp4", "a.mp4", "a.mp4"]
    assert [notes.row(number) for number in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]]
    there = pickle.loads(pickle.dumps(notes))  # noqa: S301
    assert there.row(1) == ROWS[1]
    assert there.digest == notes.digest == open_annotations(written(tmp_path, suffix)).digest


def test_rows_in_memory_and_a_key_of_ones_own() -> None:
    assert open_annotations(ROWS).ids.to_pylist() == ["b/ü.mp4", "a.mp4", "a.mp4"]
    assert open_annotations(ROWS, "id").ids.to_pylist() == ["1", "2", "3"]
    assert open_annotations(ROWS[:2]).digest != open_annotations(ROWS).digest


def test_files_on_an_object_store_are_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/notes/rows.jsonl", b'{"video": "a"}\n{"video": "b"}')
    for url in ("memory://notes/rows.jsonl", "simplecache::memory://notes/rows.jsonl"):
        assert open_annotations(url).row(1) == {"video": "b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"video": "a"}\nnonsense\n', "line 2 of .*x.jsonl is no JSON"),
        ("x.jsonl", '{"video": "a"}\n[1]\n', "line 2 of .*x.jsonl is no JSON object"),
        ("x.jsonl", '{"video": "a"}\n{"film": "b"}\n', "line 2 of .*video or video_id or id"),
        ("x.jsonl", '{"video": ["a"]}\n', "line 1 of .*has no field"),
        ("x.jsonl", "[" * 100_000, "no JSON"),
        ("x.json", '{"video": "a"}', "no JSON list"),
        ("x.json", "[", "no JSON"),
        ("x.parquet", "PAR1", "cannot read"),
        ("x.txt", "", "no file of annotations"),
        ("absent/x.jsonl", None, "cannot read"),
    ],
)
def test_what_cannot_be_read_names_the_place(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        open_annotations(path)


def test_a_parquet_without_ids_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"film": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no column"):
        open_annotations(tmp_path / "x.parquet")
    pq.write_table(pa.table({"video": ["a", None]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="1 rows without a video"):
        open_annotations(tmp_path / "y.parquet")


# other processes, and files that do not stay as they were ----------------------------------------------------

MANY = [{"video": f"{number:06}.mp4", "n": f"{number:06}"} for number in range(3000)]


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def count_wrong_rows(notes: Annotations, seed: int, found: Any) -> None:
    """Puts into `found` how many rows are not what was written, read in an order of one's own."""
    numbers = random.Random(seed).sample(range(len(MANY)), len(MANY))
    found.put(sum(notes.row(number) != MANY[number] for number in numbers))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_forks_that_read_at_once_get_their_own_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(lines_of(MANY) if suffix == ".jsonl" else json.dumps(MANY))
    notes = open_annotations(path)
    assert notes.row(7) == MANY[7]
    fork = get_context("fork")  # what a process is given is inherited, not pickled
    found = fork.Queue()
    readers = [fork.Process(target=count_wrong_rows, args=(notes, seed, found)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0] * 4
    assert [found.get() for _ in readers] == [0] * 4


@pytest.mark.parametrize("before", ["looked", "not looked", "another process"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gone", "cannot read line 3 of .*rows.jsonl"),
        ("cut", "line 3 of .*rows.jsonl is not what it was"),
        ("other rows of equal length", "line 3 of .*rows.jsonl is not what it was"),
        ("one letter in place", "line 3 of .*rows.jsonl is not what it was"),
    ],
)
def test_a_file_that_changes_after_opening_gives_no_other_row(
    tmp_path: Path, before: str, change: str, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines_of(MANY[:4]))
    notes = open_annotations(path)
    if before == "looked":
        assert notes.row(2) == MANY[2]
    elif before == "another process":
        notes = pickle.loads(pickle.dumps(notes))  # noqa: S301
    if change == "gone":
        path.unlink()
    elif change == "cut":
        path.write_text(lines_of(MANY[:2]))
    elif change == "one letter in place":
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(b'2"}'))
            file.write(b"3")
    else:
        (tmp_path / "new").write_text(lines_of(MANY[4:8]))
        (tmp_path / "new").replace(path)
    with pytest.raises(InputError, match=message):
        notes.row(2)
