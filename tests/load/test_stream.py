from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import dyntok
from dyntok.errors import DamageError, UsageError
from dyntok.load import Store, StreamSample, TokenStream
from dyntok.load.order import EpochOrder, draw, permutation
from tests.load.conftest import FAILED, questions

BATCH = 3

pytestmark = [
    # More workers than a machine may have cores.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # torchdata calls what torch has deprecated.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
]


def key(sample: StreamSample) -> tuple[int, str, float, int]:
    return sample.position, sample.id, sample.video.threshold, len(sample.video)


def keys_of(batch: list[Any]) -> list[Any]:
    """A collate function that leaves what `key` made as it is."""
    return batch


def stream_of(store: Store, **options: Any) -> TokenStream[Any]:
    return TokenStream(store, **{"thresholds": [0.4, 0.5, 0.6], "transform": key, "block": BATCH, "seed": 3} | options)


def test_an_epoch_is_every_video_once_as_at_gives_it(many: Store) -> None:
    stream = TokenStream(many, thresholds=[0.4, 0.6])
    samples = list(stream)
    assert sorted(sample.id for sample in samples) == sorted(many.ids)
    assert [sample.position for sample in samples] == list(range(stream.samples))
    assert {sample.video.threshold for sample in samples} == {0.4, 0.6}
    for sample in samples:
        expected = many[sample.id].at(threshold=sample.video.threshold)
        assert torch.equal(sample.video.tokens, expected.tokens)
        assert sample.annotation is None


def test_the_order_and_the_thresholds_follow_from_seed_and_epoch(many: Store) -> None:
    stream = stream_of(many)
    first = list(stream)
    assert list(stream) == first
    stream.set_epoch(1)
    second = list(stream)
    assert [k[1] for k in second] != [k[1] for k in first]
    assert sorted(k[1] for k in second) == sorted(k[1] for k in first)
    assert [k[2] for k in sorted(second, key=lambda k: k[1])] != [k[2] for k in sorted(first, key=lambda k: k[1])]
    assert [k[1] for k in stream_of(many, seed=4)] != [k[1] for k in first]
    stream.set_epoch(0)
    assert list(stream) == first
    assert [k[1] for k in stream_of(many, shuffle=False)] == many.ids


def test_orders_and_draws_are_the_same_in_every_release() -> None:
    """Frozen, for a change would break runs that are resumed: a permutation and a few draws."""
    assert permutation(8, 12345).tolist() == FROZEN_PERMUTATION
    assert [draw((0.4, 0.5, 0.6), 0, 0, name) for name in "abcdef"] == FROZEN_DRAWS


def test_thresholds_are_drawn_evenly() -> None:
    counts = Counter(draw((0.4, 0.45, 0.5, 0.55, 0.6), 0, 0, f"video-{n}") for n in range(5000))
    assert all(900 < count < 1100 for count in counts.values())


def test_windows_mix_their_shards_and_keep_reads_together() -> None:
    counts = np.full(40, 25)
    order = EpochOrder(counts, key=7, window=4)
    shards = [order.item(position) // 25 for position in range(len(order))]
    assert sorted(order.item(position) for position in range(1000)) == list(range(1000))
    for first in range(0, 1000, 100):
        window = shards[first : first + 100]
        assert len(set(window)) == 4
        assert len(set(window[:25])) == 4
    assert shards[::100] != sorted(shards[::100])
    with pytest.raises(IndexError):
        order.item(1000)


def test_the_items_of_a_window_are_mixed_anew_in_every_epoch() -> None:
    orders = [[EpochOrder(np.array([50]), key, 1).item(p) for p in range(50)] for key in (1, 2)]
    assert orders[0] != orders[1]
    two = EpochOrder(np.array([50, 50]), 1, 1)
    halves = [[two.item(p + first) % 50 for p in range(50)] for first in (0, 50)]
    assert halves[0] != halves[1]


def test_annotations_of_a_window_are_of_its_shards(many: Store) -> None:
    stream = TokenStream(many, annotations=questions(many.ids), window=2, seed=2)
    shards = [int(sample.id[1]) for sample in stream]
    sizes = {shard: shards.count(shard) for shard in set(shards)}
    while shards:
        window = {shards[0]} | set(shards[: sizes[shards[0]]])
        assert len(window) <= 2
        taken = shards[: sum(sizes[shard] for shard in window)]
        assert set(taken) <= window or len(window) == 1
        shards = shards[len(taken) :]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_ranks_batches_do_not_depend_on_its_workers(many: Store, workers: int) -> None:
    stream = stream_of(many, rank=1, world_size=2)
    expected = list(DataLoader(stream, batch_size=BATCH, collate_fn=keys_of))
    loader = DataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=workers)
    assert list(loader) == expected
    stream.set_epoch(1)
    assert list(loader) != expected


def test_workers_that_stay_alive_follow_the_epoch(many: Store) -> None:
    stream = stream_of(many)
    loader = DataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=2, persistent_workers=True)
    for epoch in (0, 1, 2):
        stream.set_epoch(epoch)
        here = stream_of(many)
        here.set_epoch(epoch)
        assert [k for batch in loader for k in batch] == list(here)


def test_workers_that_are_spawned_read_the_same(many: Store) -> None:
    stream = stream_of(many)
    stream.set_epoch(2)
    expected = list(stream)
    loader = DataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=1, multiprocessing_context="spawn")
    assert [k for batch in loader for k in batch] == expected


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_exactly(many: Store, workers: int, stop: int) -> None:
    def loader_of() -> StatefulDataLoader[Any]:
        stream = stream_of(many)
        stream.set_epoch(1)
        return StatefulDataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=workers)

    expected = list(loader_of())
    loader = loader_of()
    taken = list(islice(loader, stop))
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = loader_of()
    resumed.load_state_dict(state)
    assert taken + list(resumed) == expected


@pytest.mark.parametrize(("workers", "again"), [(2, 0), (2, 3), (0, 2), (3, 1)])
def test_other_workers_go_on_from_a_stateful_loaders_state(many: Store, workers: int, again: int) -> None:
    stream = stream_of(many)
    loader = StatefulDataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=workers)
    taken = list(islice(loader, 2))
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = stream_of(many)
    resumed.load_state_dict(state)
    rest = list(DataLoader(resumed, batch_size=BATCH, collate_fn=keys_of, num_workers=again))
    assert sorted(k for batch in taken + rest for k in batch) == sorted(stream_of(many))


@pytest.mark.parametrize("again", [0, 1, 2])
def test_marked_batches_resume_in_order_with_other_workers(many: Store, again: int) -> None:
    expected = list(DataLoader(stream_of(many), batch_size=BATCH, collate_fn=keys_of))
    stream = stream_of(many)
    loader = DataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=2, prefetch_factor=2)
    for batch in islice(loader, 3):
        stream.mark([k[0] for k in batch])
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = stream_of(many)
    resumed.load_state_dict(state)
    loader = DataLoader(resumed, batch_size=BATCH, collate_fn=keys_of, num_workers=again)
    assert list(loader) == expected[3:]


def test_without_marks_the_training_process_refuses_a_state(many: Store) -> None:
    stream = stream_of(many)
    next(iter(DataLoader(stream, batch_size=BATCH, collate_fn=keys_of, num_workers=1)))
    with pytest.raises(UsageError, match="which were used"):
        stream.state_dict()


def test_ranks_are_those_of_the_launcher(many: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    ours = [k[0] for k in stream_of(many, block=1)]
    assert ours == list(range(1, 17, 3))
    assert "rank=1 of 3" in repr(stream_of(many))
    with pytest.raises(UsageError, match="go together"):
        stream_of(many, rank=1)
    with pytest.raises(UsageError, match="rank 3 of 3"):
        stream_of(many, rank=3, world_size=3)


def test_a_budget_is_met_by_every_sample(many: Store) -> None:
    for sample in TokenStream(many, budget=40, frames="fit", thresholds=0.5):
        rows = sample.video.row_splits.numel() - 1
        assert len(sample.video) + rows <= 40
        assert sample.video.threshold <= 0.5
    with pytest.raises(UsageError, match="4 frames: one token a row and its markers make 24") as caught:
        TokenStream(many, budget=23)
    assert 'frames="fit"' in str(caught.value.hint)
    TokenStream(many, budget=23, frames=3)
    with pytest.raises(UsageError, match="goes with a budget"):
        TokenStream(many, frames="fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": 0.7}, "lies above"),
        ({"thresholds": []}, "empty"),
        ({"markers": "rows"}, "no such choice"),
        ({"on_damage": "ignore"}, "no such choice"),
        ({"window": 0}, "no such choice"),
        ({"block": 0}, "no such part"),
    ],
)
def test_what_makes_no_sense_is_refused(many: Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TokenStream(many, **options)


def test_failed_videos_are_reported(many: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dyntok"):
        stream = TokenStream(many)
    assert "2 of 19 samples are not available (truncated 2)" in caplog.text
    assert dict(stream.unavailable()).keys() == set(FAILED)
    assert all("truncated: 3 of 4 frames" in reason for _, reason in stream.unavailable())


def test_annotations_of_lost_and_unknown_videos_are_reported(many: Store, caplog: pytest.LogCaptureFixture) -> None:
    rows = questions([*many.ids, FAILED[0], "nowhere.mp4"])
    with caplog.at_level(logging.WARNING, "dyntok"):
        stream = TokenStream(many, annotations=rows)
    assert "4 of 38 samples are not available" in caplog.text
    assert "not in the store 2" in caplog.text
    assert Counter(name for name, _ in stream.unavailable()) == {FAILED[0]: 2, "nowhere.mp4": 2}
    assert stream.samples == 34


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("workers", [0, 2])
def test_annotations_meet_their_videos(many: Store, tmp_path: Path, suffix: str, workers: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = questions(many.ids)
    path = tmp_path / f"qa.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    stream = TokenStream(many, annotations=path, transform=lambda sample: (sample.id, dict(sample.annotation)))
    loader = DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=keys_of)
    seen = list(loader)
    assert sorted(row["id"] for _, row in seen) == sorted(row["id"] for row in rows)
    assert all(video_id == row["video"] for video_id, row in seen)
    assert {row["id"]: row for _, row in seen} == {row["id"]: row for row in rows}
    in_order = TokenStream(many, annotations=path, shuffle=False)
    assert [sample.annotation["id"] for sample in in_order] == [row["id"] for row in rows]  # type: ignore[index]


def test_a_look_before_training_does_not_mix_up_the_annotations(many: Store, tmp_path: Path) -> None:
    rows = [{"video": many.ids[number % 17], "n": f"{number:04}"} for number in range(1500)]
    path = tmp_path / "qa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = TokenStream(many, annotations=path, transform=lambda sample: (sample.id, sample.annotation))
    next(iter(stream))
    for epoch in (1, 2):
        stream.set_epoch(epoch)
        seen = list(DataLoader(stream, batch_size=None, num_workers=4, collate_fn=keys_of))
        assert sorted(row["n"] for _, row in seen) == [row["n"] for row in rows]
        assert all(video_id == row["video"] for video_id, row in seen)


def test_a_state_of_other_annotations_is_refused(many: Store) -> None:
    rows = questions(many.ids)
    state = TokenStream(many, annotations=rows).state_dict()
    rows[0]["conversations"][0]["value"] += "?"
    with pytest.raises(UsageError, match="another dataset"):
        TokenStream(many, annotations=rows).load_state_dict(state)


def test_damage_is_an_error_or_a_line_in_the_log(
    many_url: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(many_url, folder)
    store = dyntok.open(folder)
    row = store.index.row(store.index.position("s2/v3.mp4"))[1]
    with (folder / "shards/shard-000002.tar").open("r+b") as file:
        file.seek(row.offset)
        file.write(b"\\xff" * 8)
    with pytest.raises(DamageError, match="shard-000002"):
        list(TokenStream(folder))
    stream = TokenStream(folder, on_damage="skip")
    assert sorted(sample.id for sample in stream) == sorted(set(store.ids) - {"s2/v3.mp4"})
    assert "sample skipped: " in caplog.text
    assert stream.state_dict()["prefix"] == stream.samples


def test_a_stream_travels_between_processes(many: Store) -> None:
    stream = stream_of(many)
    there = pickle.loads(pickle.dumps(stream))  # noqa: S301
    assert list(there) == list(stream)


FROZEN_PERMUTATION = [2, 6, 0, 3, 1, 5, 7, 4]
FROZEN_DRAWS = [0.6, 0.6, 0.5, 0.6, 0.6, 0.4]
