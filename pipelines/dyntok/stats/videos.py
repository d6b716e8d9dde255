"""What the rows of `index.parquet` say, gathered a batch at a time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dyntok.stats.distribution import Distribution, leading_bits
from dyntok.stats.totals import MICROSECONDS, TOKENS_PREFIX, Columns, Totals

# What is looked at of a row, besides its tokens.
COLUMNS = (
    *("id", "status", "error_class", "error", "shard", "row"),
    *("frames", "seconds", "patches", "nbytes", "decoder"),
)
EXTREMES = 8
EXAMPLES = 3
MOST_NAMES = 64
PPM = 1_000_000
_FRAME_BITS = 5
_OF_EXAMPLE = ("id", "shard", "row", "frames", "seconds", "patches", "error")


@dataclass(frozen=True, slots=True)
class Example:
    """One video worth showing. `error` is empty for those that are done."""

    id: str
    shard: int
    row: int
    frames: int
    seconds: float
    patches: int
    tokens: tuple[int, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class VideoStatistics:
    """Counts over videos; for the same rows they are the same, however the rows were split up.

    Attributes:
        names: of the configured thresholds, rising.
        totals: sums over all videos.
        frames, milliseconds: of a video, over those that are done.
        tokens: of a video, at each threshold.
        kept: tokens per million patches of a video, at each threshold.
        by_frames: done videos by their number of frames (5 leading bits): videos, frames, and for each threshold the
            sum, the fewest and the most tokens.
        decoders, error_classes: how many videos of each; beyond 64 names they are counted under the empty one.
        failures: the first three failed videos of each class, by id.
        least, most: the eight videos that keep the smallest and the largest share at the stored threshold.
    """

    names: tuple[str, ...]
    totals: Totals
    frames: Distribution
    milliseconds: Distribution
    tokens: tuple[Distribution, ...]
    kept: tuple[Distribution, ...]
    by_frames: dict[int, tuple[int, ...]]
    decoders: dict[str, int]
    error_classes: dict[str, int]
    failures: dict[str, tuple[Example, ...]]
    least: tuple[Example, ...]
    most: tuple[Example, ...]

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> VideoStatistics:
        """Of no video."""
        nothing = Distribution.empty()
        each = (nothing,) * len(names)
        return cls(names, Totals.empty(names), nothing, nothing, each, each, {}, {}, {}, {}, (), ())

    @classmethod
    def of(cls, batch: pa.RecordBatch, names: tuple[str, ...]) -> VideoStatistics:
        """Of some rows of `index.parquet`, of which `columns_read(names)` are needed."""
        columns = columns_of(batch, names)
        done = np.flatnonzero(columns["done"])
        patches = columns["patches"][done]
        tokens = [columns[TOKENS_PREFIX + name][done] for name in names]
        share = tokens[-1] / np.maximum(patches, 1)
        return cls(
            names=names,
            totals=Totals.of(columns, names),
            frames=Distribution.of(columns["frames"][done]),
            milliseconds=Distribution.of(columns["microseconds"][done] // 1000),
            tokens=tuple(Distribution.of(numbers) for numbers in tokens),
            kept=tuple(Distribution.of(numbers * PPM // np.maximum(patches, 1)) for numbers in tokens),
            by_frames=_by_frames(columns["frames"][done], tokens),
            decoders=_counted(batch.column("decoder")),
            error_classes=_counted(batch.column("error_class")),
            failures=_failures(batch, names),
            least=_extremes(batch, names, done, share),
            most=_extremes(batch, names, done, -share),
        )

    def __add__(self, other: VideoStatistics) -> VideoStatistics:
        if self.names != other.names:
            raise ValueError(f"thresholds {self.names} and {other.names} do not add up")
        mine, others = self.failures, other.failures
        classes = sorted({*mine, *others})[:MOST_NAMES]
        return VideoStatistics(
            names=self.names,
            totals=self.totals + other.totals,
            frames=self.frames + other.frames,
            milliseconds=self.milliseconds + other.milliseconds,
            tokens=tuple(a + b for a, b in zip(self.tokens, other.tokens, strict=True)),
            kept=tuple(a + b for a, b in zip(self.kept, other.kept, strict=True)),
            by_frames=_joined_frames(self.by_frames, other.by_frames),
            decoders=_joined(self.decoders, other.decoders),
            error_classes=_joined(self.error_classes, other.error_classes),
            failures={
                name: tuple(heapq.nsmallest(EXAMPLES, mine.get(name, ()) + others.get(name, ()), attrgetter("id")))
                for name in classes
            },
            least=_smallest((*self.least, *other.least), 1),
            most=_smallest((*self.most, *other.most), -1),
        )


def columns_read(names: tuple[str, ...]) -> list[str]:
    """The columns of `index.parquet` that statistics need."""
    return [*COLUMNS, *(TOKENS_PREFIX + name for name in names)]


def columns_of(batch: pa.RecordBatch, names: tuple[str, ...]) -> Columns:
    """The numbers of some rows, and a mask for each status; times in whole microseconds."""
    wanted = ("frames", "patches", "nbytes", *(TOKENS_PREFIX + name for name in names))
    columns: Columns = {name: batch.column(name).to_numpy() for name in wanted}
    seconds = batch.column("seconds").to_numpy()
    columns["microseconds"] = np.rint(seconds * MICROSECONDS).astype(np.int64)
    for status in ("done", "failed", "pending"):
        columns[status] = pc.equal(batch.column("status"), status).to_numpy(zero_copy_only=False)
    return columns


def _counted(column: pa.Array) -> dict[str, int]:
    found = {item["values"]: item["counts"] for item in column.value_counts().to_pylist() if item["values"]}
    return _joined(found, {})


def _joined(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Sums by name; at most `MOST_NAMES` of them, the rest under the empty name."""
    sums = Counter(one) + Counter(other)
    named = {name: sums[name] for name in sorted(sums.keys() - {""})[:MOST_NAMES]}
    rest = sums.total() - sum(named.values())
    return named | ({"": rest} if rest else {})


def _by_frames(frames: npt.NDArray[np.int64], tokens: list[npt.NDArray[np.int64]]) -> dict[int, tuple[int, ...]]:
    bins = leading_bits(frames, _FRAME_BITS)
    found = {}
    for key in np.unique(bins).tolist():
        inside = bins == key
        values = [int(inside.sum()), int(frames[inside].sum())]
        for numbers in tokens:
            some = numbers[inside]
            values += [int(some.sum()), int(some.min()), int(some.max())]
        found[key] = tuple(values)
    return found


def _joined_frames(one: dict[int, tuple[int, ...]], other: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    joined = one | other
    for key in one.keys() & other.keys():
        # Videos and frames add up; of each threshold there are a sum, the fewest and the most.
        pairs = enumerate(zip(one[key], other[key], strict=True), start=1)
        joined[key] = tuple(sum(pair) if i < 3 else (sum, min, max)[i % 3](pair) for i, pair in pairs)
    return dict(sorted(joined.items()))


def _failures(batch: pa.RecordBatch, names: tuple[str, ...]) -> dict[str, tuple[Example, ...]]:
    failed = pc.indices_nonzero(pc.equal(batch.column("status"), "failed"))
    classes, ids = (batch.column(name).take(failed).to_pylist() for name in ("error_class", "id"))
    first: dict[str, list[tuple[str, int]]] = {}
    for name, video_id, position in zip(classes, ids, failed.to_pylist(), strict=True):
        first.setdefault(name, []).append((video_id, position))
    chosen = {name: heapq.nsmallest(EXAMPLES, first[name]) for name in sorted(first)[:MOST_NAMES]}
    return {name: tuple(_example(batch, names, place) for _, place in some) for name, some in chosen.items()}


def _extremes(
    batch: pa.RecordBatch, names: tuple[str, ...], done: npt.NDArray[np.int64], share: npt.NDArray[np.float64]
) -> tuple[Example, ...]:
    if not len(done):
        return ()
    last = min(EXTREMES, len(share)) - 1
    limit = np.partition(share, last)[last]
    places = np.flatnonzero(share <= limit)
    ids = batch.column("id").take(pa.array(done[places])).to_pylist()
    chosen = heapq.nsmallest(EXTREMES, zip(share[places].tolist(), ids, done[places].tolist(), strict=True))
    return tuple(_example(batch, names, position) for _, _, position in chosen)


def _example(batch: pa.RecordBatch, names: tuple[str, ...], position: int) -> Example:
    row: dict[str, Any] = batch.slice(position, 1).to_pylist()[0]
    tokens = tuple(row[TOKENS_PREFIX + name] for name in names)
    return Example(tokens=tokens, **{name: row[name] for name in _OF_EXAMPLE})


def _smallest(examples: Iterable[Example], sign: int) -> tuple[Example, ...]:
    def place(example: Example) -> tuple[float, str]:
        return sign * example.tokens[-1] / max(1, example.patches), example.id

    return tuple(heapq.nsmallest(EXTREMES, examples, key=place))
