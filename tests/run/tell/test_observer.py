"""Everybody who follows a run hears everything, in order, and a shard's record is not read back for it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from dyntok.run import ArrayJob, RunObserver, encode
from dyntok.run.tell.observer import Observers
from dyntok.run.tell.summaries import ShardSummary, summarise, summary_of
from dyntok.store import CompletionRecord, StoreRoot
from dyntok.store.names import record_path
from tests.support.faulty_fs import faulty_store
from tests.support.runs import demo_config

EVENTS = [name for name in dir(RunObserver) if not name.startswith("_")]


class Hearing(RunObserver):
    """Writes down what it is told, and may fail at it."""

    def __init__(self, name: str, heard: list[Any], fails: bool = False) -> None:
        self._name, self._heard, self._fails = name, heard, fails

    def __getattribute__(self, event: str) -> Any:
        if event not in EVENTS:
            return super().__getattribute__(event)

        def hear(*args: Any, **kwargs: Any) -> None:
            self._heard.append((self._name, event, args, kwargs))
            if self._fails:
                raise ValueError(event)

        return hear


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_reaches_all_in_order_up_to_one_that_fails(event: str) -> None:
    heard: list[Any] = []
    first, second = Hearing("first", heard), Hearing("second", heard)
    third = Hearing("third", heard, fails=True)
    arguments = dict.fromkeys(list(inspect.signature(getattr(RunObserver, event)).parameters)[1:], 7)
    told = Observers(first, Observers(second, third, Hearing("deaf", heard)), Hearing("deaf", heard))
    with pytest.raises(ValueError, match=event):
        getattr(told, event)(**arguments)
    assert heard == [(name, event, (), arguments) for name in ("first", "second", "third")]
    heard.clear()
    with pytest.raises(ValueError, match=event):
        getattr(told, event)(*arguments.values())
    assert [args for _, _, args, _ in heard] == [(7,) * len(arguments)] * 3


def test_a_committed_shard_is_told_to_those_who_want_its_number_alone() -> None:
    class Counting(RunObserver):
        def shard(self, shard: int, bytes_written: int) -> None:
            seen.append((shard, bytes_written))

    seen: list[tuple[int, int]] = []
    summary = ShardSummary(3, "", 0, "", 0, 0, 0, 0.0, 0, {}, 77, (), ())
    Observers(RunObserver(), Counting()).committed(summary)
    assert seen == [(3, 77)]


def test_the_summary_of_a_record_at_hand_is_that_of_its_file(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    out = str(tmp_path / "out")
    encode([str(tmp_path / "broken.mp4"), str(clip_folder / "bikes.mp4")], out, demo_config())
    root = StoreRoot.open(out)
    record = CompletionRecord.load_strict(root, 0)
    assert {row.status for row in record.videos} == {"done", "failed"}
    assert summary_of(record) == summarise(root.read_bytes(record_path(0)), 0, "here", strict=True)


def test_no_record_is_read_back_while_a_run_writes(clip_folder: Path) -> None:
    """On an object store that would be two requests a shard."""
    with faulty_store() as store:

        class Looking(RunObserver):
            def shard(self, shard: int, bytes_written: int) -> None:
                path = record_path(shard)
                requests.extend(call for call in store.calls if call[1].endswith(path))

        requests: list[tuple[str, str]] = []
        clips = [str(clip_folder / name) for name in ("bikes.mp4", "carphone_pristine.mp4")]
        config = demo_config(shard_size="100KB", decode_workers=1)
        encode(clips, "faulty://bucket/out", config, job=ArrayJob(0, 1), observer=Looking())
        assert [operation for operation, _ in requests] == ["rm_file", "pipe_file", "info"] * 2
        path = next(name for name in store.store if name.endswith(".shards.jsonl") or ".shards." in name)
        lines = store.store[path].getvalue().splitlines(keepends=True)
        assert sorted(s.shard for line in lines if (s := ShardSummary.from_line(line))) == [0, 1]
