"""Statistics over rows of an index: the same however the rows were split up, exact where they say so."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.stats import Distribution, VideoStatistics
from dyntok.stats.videos import EXAMPLES, EXTREMES
from dyntok.store.index import index_schema

NAMES = ("0.40", "0.60")


def rows(count: int, seed: int = 0) -> pa.RecordBatch:
    """Rows of an index as its schema has them."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        failed = number % 7 == 3
        frames = int(rng.integers(1, 400))
        patches = 0 if failed else frames * 196
        tokens = sorted((rng.random(2) * patches).astype(int).tolist())
        made.append(
            {
                "id": f"clips/{number:05d}.mp4",
                "status": "failed" if failed else "done",
                "error_class": ("truncated", "corrupt")[number % 2] if failed else "",
                "error": "3 of 4 frames came" if failed else "",
                "shard": number // 10,
                "row": -1 if failed else number % 10,
                "position": number % 10,
                "attempt": 1,
                "offset": 0,
                "nbytes": 0 if failed else 1000 + number,
                "frames": 0 if failed else frames,
                "seconds": 0.0 if failed else float(rng.random() * 100),
                "patches": patches,
                "source": "",
                "key": "",
                "decoder": "" if failed else ("pyav", "decord")[number % 3 == 0],
                "id_hash": number,
                "tokens_0.40": tokens[0],
                "tokens_0.60": tokens[1],
            }
        )
    return pa.RecordBatch.from_pylist(made, schema=index_schema((0.4, 0.6)))


def described(found: VideoStatistics) -> str:
    return repr(found)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_split_in_any_order_gives_the_same(data: st.DataObject) -> None:
    batch = rows(60)
    order = data.draw(st.permutations(range(60)))
    shuffled = batch.take(pa.array(order))
    cuts = sorted(data.draw(st.sets(st.integers(0, 60))) | {0, 60})
    parts = [VideoStatistics.of(shuffled.slice(a, b - a), NAMES) for a, b in itertools.pairwise(cuts)]
    total = VideoStatistics.empty(NAMES)
    for part in parts:
        total = part + total
    assert described(total) == described(VideoStatistics.of(batch, NAMES) + VideoStatistics.empty(NAMES))


def test_the_figures_are_those_of_the_rows() -> None:
    batch = rows(200)
    found = VideoStatistics.of(batch, NAMES)
    done = [row for row in batch.to_pylist() if row["status"] == "done"]
    assert (found.totals.videos, found.totals.done) == (200, len(done))
    assert found.totals.tokens == tuple(sum(row[f"tokens_{name}"] for row in done) for name in NAMES)
    assert found.totals.nbytes == sum(row["nbytes"] for row in done)
    assert abs(found.totals.microseconds / 1e6 - sum(row["seconds"] for row in done)) < 1e-3
    assert found.decoders == {name: sum(row["decoder"] == name for row in done) for name in ("decord", "pyav")}
    for name, examples in found.failures.items():
        ids = sorted(row["id"] for row in batch.to_pylist() if row["error_class"] == name)
        assert [example.id for example in examples] == ids[:EXAMPLES]
        assert found.error_classes[name] == len(ids)
    by_share = sorted(done, key=lambda row: (row["tokens_0.60"] / row["patches"], row["id"]))
    assert [example.id for example in found.least] == [row["id"] for row in by_share[:EXTREMES]]
    assert {example.id for example in found.most} == {row["id"] for row in by_share[-EXTREMES:]}
    assert sum(values[0] for values in found.by_frames.values()) == len(done)
    widest = max(found.by_frames)
    inside = [row for row in done if row["frames"] >= widest]
    assert found.by_frames[widest][2:5] == (
        sum(row["tokens_0.40"] for row in inside),
        min(row["tokens_0.40"] for row in inside),
        max(row["tokens_0.40"] for row in inside),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=60), st.integers(0, 100))
def test_percentiles_are_numpys_within_the_stated_error(numbers: list[int], percent: int) -> None:
    half = len(numbers) // 2
    found = Distribution.of(np.array(numbers[:half])) + Distribution.of(np.array(numbers[half:]))
    expected = float(np.percentile(numbers, percent))
    assert found.percentile(percent) <= expected * (1 + 1e-12)
    assert found.percentile(percent) >= expected * (1 - 2**-13) - 1e-9
    small = [number % 2**14 for number in numbers]
    exact = Distribution.of(np.array(small)).percentile(percent)
    assert exact == np.percentile(small, percent) or abs(exact - np.percentile(small, percent)) < 1e-6
    assert (found.total, len(found)) == (sum(numbers), len(numbers))


def test_a_histogram_counts_between_its_edges() -> None:
    found = Distribution.of(np.array([0, 1, 5, 5, 9, 10, 11]))
    assert found.histogram(np.array([0, 5, 10])) == [2, 3]


def test_many_different_numbers_stay_few() -> None:
    rng = np.random.default_rng(0)
    found = Distribution.empty()
    for _ in range(20):
        found = found + Distribution.of(rng.integers(0, 2**21, 20_000))
    assert len(found) == 400_000 and len(found.values) <= 2**14 + 7 * 2**13
