"""Advice for the videos of a store, counted exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyntok.advice.report import SHARE, BudgetAdvice, FramesRow, usual_frames
from dyntok.boundaries import boundaries
from dyntok.errors import UsageError
from dyntok.load import Store
from dyntok.merging import MarkerMode, marker_count

MOST_SAMPLED, FEWEST_SAMPLED = 256, 16
# Some 200 MB of similarity maps.
MOST_FRAMES_READ = 2**18
_SEED = 0

Lengths = npt.NDArray[np.int64]


def advise(
    store: Store,
    budget: int,
    markers: MarkerMode = "row",
    *,
    share: float = SHARE,
    most_sampled: int = MOST_SAMPLED,
) -> BudgetAdvice:
    """How many frames fit a budget at each configured threshold.

    With all frames of a video, tokens come from the index, for every video. With fewer, they are counted in the
    similarity maps: of all videos if there are at most `most_sampled`, else of so many drawn at random, the same ones
    each time; fewer, but at least 16, where they would hold more than 262,144 frames. No tokens are read.

    Raises UsageError for a store without videos.
    """
    return advise_each(store, [budget], markers, share=share, most_sampled=most_sampled)[0]


def advise_each(
    store: Store,
    budgets: Sequence[int],
    markers: MarkerMode = "row",
    *,
    share: float = SHARE,
    most_sampled: int = MOST_SAMPLED,
) -> list[BudgetAdvice]:
    """What `advise` says of each of several budgets; the store is read once."""
    done = store.index.done
    if not len(done):
        raise UsageError(f"{store.root.url} holds no video", hint="`dyntok status STORE --failed` says why")
    counts = _Counts.of(store, done, markers, most_sampled)
    return [_advice(store.index.thresholds, counts, budget, markers, share) for budget in budgets]


def _advice(names: Sequence[str], counts: _Counts, budget: int, markers: MarkerMode, share: float) -> BudgetAdvice:
    rows = []
    for frames in usual_frames(counts.most_frames):
        lengths = [counts.lengths(level, frames) for level in range(len(names))]
        rows.append(
            FramesRow(
                frames=frames,
                videos=len(lengths[0]),
                length={name: float(np.median(some)) for name, some in zip(names, lengths, strict=True)},
                fits={name: _fitting(some, budget) for name, some in zip(names, lengths, strict=True)},
            )
        )
    return BudgetAdvice(
        budget=budget,
        markers=markers,
        estimated=False,
        videos=len(counts.frames),
        sampled=len(counts.sample),
        stored_frames=counts.most_frames,
        share=share,
        rows=tuple(rows),
        most_frames={name: _most_frames(counts, i, budget, share) for i, name in enumerate(names)},
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """K thresholds. `frames: [V]`, `tokens: [K, V]` of every video; `sample`: tokens `[T, K]` of each frame of some."""

    frames: Lengths
    tokens: Lengths
    sample: list[npt.NDArray[np.int32]]
    markers_once: int
    markers_each: int

    @classmethod
    def of(cls, store: Store, done: npt.NDArray[np.int64], markers: MarkerMode, most_sampled: int) -> _Counts:
        index, rows = store.index, store.info.grid.rows
        frames = index.numbers("frames")[done].astype(np.int64)
        tokens = np.stack([index.numbers(f"tokens_{name}")[done] for name in index.thresholds])
        once = marker_count(markers, 0, rows)
        chosen = done[_drawn(frames, most_sampled)]
        return cls(frames, tokens, _frame_tokens(store, chosen), once, marker_count(markers, 1, rows) - once)

    @property
    def most_frames(self) -> int:
        return int(self.frames.max())

    def lengths(self, level: int, frames: int) -> Lengths:
        """Tokens and markers at a threshold with at most so many frames: of every video, or of the sampled ones."""
        if frames >= self.most_frames:
            every: Lengths = self.tokens[level] + self.markers_once + self.markers_each * self.frames
            return every
        found = []
        for tokens in self.sample:
            total = len(tokens)
            # The frames that StoredVideo.at takes.
            chosen = np.linspace(0, total - 1, min(frames, total)).astype(np.int64)
            found.append(int(tokens[chosen, level].sum()) + self.markers_once + self.markers_each * len(chosen))
        return np.array(found, np.int64)


def _drawn(frames: Lengths, most_sampled: int) -> npt.NDArray[np.int64]:
    """Places of the videos to be read, rising."""
    affordable = max(FEWEST_SAMPLED, int(MOST_FRAMES_READ / max(1.0, float(frames.mean()))))
    count = min(len(frames), most_sampled, affordable)
    drawn: npt.NDArray[np.int64] = np.random.default_rng(_SEED).permutation(len(frames))[:count]
    return np.sort(drawn)


def _frame_tokens(store: Store, positions: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
    """Tokens `[T, K]` of each frame of some videos at each configured threshold."""
    shards, rows = store.index.numbers("shard"), store.index.numbers("row")
    found = []
    for position in sorted(positions.tolist(), key=lambda p: (int(shards[p]), int(rows[p]))):
        similarity: Any = store.reader(int(shards[position])).head(int(rows[position])).similarity
        tokens = [boundaries(similarity, t).sum((1, 2), dtype=np.int32) for t in store.info.thresholds]
        found.append(np.stack(tokens, axis=1))
    return found


def _fitting(lengths: Lengths, budget: int) -> float:
    return float(np.mean(lengths <= budget))


def _most_frames(counts: _Counts, level: int, budget: int, share: float) -> int:
    """The number of frames with which enough videos fit, where with one more they do not.

    Found by halving: a video's tokens grow with its frames, but for which ones are taken.
    """
    low, high = 0, counts.most_frames
    if _fitting(counts.lengths(level, high), budget) >= share:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if _fitting(counts.lengths(level, middle), budget) >= share:
            low = middle
        else:
            high = middle
    return low
