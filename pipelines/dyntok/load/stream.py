"""Streaming a store into training: shuffled, split over ranks and workers, resumable anywhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np
import xxhash
from torch.utils.data import IterableDataset

from dyntok.errors import DamageError, UsageError
from dyntok.load.access import Selection, Store, StoredVideo, open_store
from dyntok.load.annotations import open_annotations
from dyntok.load.cursor import Cursor, Resumable
from dyntok.load.items import join_items
from dyntok.load.order import EpochOrder, draw, order_key
from dyntok.load.remaining import Share
from dyntok.merging import MARKER_MODES, MarkerMode, VideoTokens, marker_count

log = logging.getLogger("dyntok")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class StreamSample:
    """What a `TokenStream` yields, or hands to its `transform`.

    Attributes:
        id: the video's id.
        video: its tokens.
        position: in the epoch, 0 .. samples - 1.
        epoch: number of the epoch.
        annotation: the row joined to the video, None without annotations.
        markers: the stream's marker mode, for `expand`.
    """

    id: str
    video: VideoTokens
    position: int
    epoch: int
    annotation: Mapping[str, Any] | None
    markers: MarkerMode


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample whose tokens were not read yet: what it will be, and how long."""

    stored: StoredVideo
    selection: Selection
    position: int
    epoch: int
    annotation: Mapping[str, Any] | None


class TokenStream(Resumable, IterableDataset[T_co], Generic[T_co]):
    """The samples of a store, one epoch an iteration, for `torch.utils.data.DataLoader` or `StatefulDataLoader`.

    A sample is a video, or with `annotations` a row of these. Each is seen exactly once an epoch, by one rank and one
    of its workers. The order is a function of seed, epoch and position; `set_epoch` moves on to the next.

    Args:
        store: a `Store`, or where it is.
        thresholds: one threshold, or several of which each sample draws one by (seed, epoch, id), as DynTok trains.
            By default the stored one. With `budget`, an upper bound.
        budget: most tokens and markers together; each sample takes the largest threshold that fits.
        frames: as in `StoredVideo.at`; `"fit"` drops frames where one token a row is still too many.
        markers: which markers count towards the budget and go into the sequence.
        annotations: a `.jsonl`, `.json` or `.parquet` file, or rows, each naming its video; see `annotation_key`.
        annotation_key: the field with the video's id; by default `video`, `video_id` or `id`.
        transform: is given a `StreamSample`, and what it returns is yielded; a `ChatTokenizer` makes sequences.
        shuffle: without it, the order of the store, or of the annotations.
        seed: of the order and of the thresholds.
        window: shards that are shuffled among each other; more need more open files and mix better.
        block: samples dealt to one reader at a time. With the loader's batch size here, a rank's batches are the same
            whatever its number of workers.
        rank, world_size: by default those of `torch.distributed` or of the launcher (`RANK`, `WORLD_SIZE`).
        even_ranks: leave out up to `world_size * block - 1` samples at the end of an epoch, so that all ranks see
            equally many.
        on_damage: `raise` a DamageError, or `skip` the sample and log an error.

    Raises:
        UsageError: arguments contradict each other, or a video cannot meet the budget at any threshold.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str],
        *,
        thresholds: float | Sequence[float] | None = None,
        budget: int | None = None,
        frames: int | Literal["fit"] | None = None,
        markers: MarkerMode = "row",
        annotations: str | os.PathLike[str] | Sequence[dict[str, Any]] | None = None,
        annotation_key: str | None = None,
        transform: Callable[[StreamSample], T_co] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        window: int = 16,
        block: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
        even_ranks: bool = False,
        on_damage: Literal["raise", "skip"] = "raise",
    ) -> None:
        if markers not in MARKER_MODES or on_damage not in ("raise", "skip") or window < 1:
            raise UsageError(
                f"markers={markers!r}, on_damage={on_damage!r}, window={window}: no such choice",
                hint=f"markers is one of {', '.join(MARKER_MODES)}; on_damage raise or skip; window at least 1",
            )
        self.store = store if isinstance(store, Store) else open_store(store)
        self.thresholds = _thresholds(thresholds, self.store.info.stored_threshold)
        self.budget, self.frames, self.markers = budget, frames, markers
        self.transform, self.on_damage, self.seed = transform, on_damage, seed
        self._annotations = None if annotations is None else open_annotations(annotations, annotation_key)
        self._items = join_items(self.store, self._annotations, shuffle)
        self._shuffle, self._window = shuffle, window
        self._check_budget()
        self.cursor = Cursor(self._identify(), self.samples, _share(rank, world_size, block), even_ranks)
        self._order: tuple[int, EpochOrder] | None = None
        self._items.log_unavailable(self.store)

    @property
    def samples(self) -> int:
        """Samples of a whole epoch, over all ranks."""
        return len(self._items.video)

    def unavailable(self) -> Iterator[tuple[str, str]]:
        """Id and reason of every annotation (or, without annotations, input video) that the store cannot serve."""
        return self._items.unavailable(self.store, self._annotations)

    def __repr__(self) -> str:
        share = self.cursor.rank_share
        return f"TokenStream({self.store!r}, samples={self.samples}, rank={share.rank} of {share.ranks})"

    # iterating ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        for step in self.cursor.begin():
            if not self.cursor.is_seen(step):
                sample = self.read(step)
                self.cursor.seen(step)
                if sample is not None:
                    yield cast(T_co, sample) if self.transform is None else self.transform(sample)

    def read(self, step: int) -> StreamSample | None:
        """The sample at this reader's step; None if it is damaged and is to be skipped."""
        draft = self.draft(step)
        return None if draft is None else self.load(draft)

    def draft(self, step: int) -> Draft | None:
        """What `read` would read, without its tokens."""
        epoch, position = self.cursor.reading, self.cursor.position(step)
        item = self._epoch_order(epoch).item(position)
        stored = StoredVideo(self.store, int(self._items.video[item]))
        annotation = None
        if self._annotations is not None:
            annotation = self._annotations.row(int(self._items.annotation[item]))

        def select() -> Draft:
            threshold = draw(self.thresholds, self.seed, epoch, stored.id)
            selection = stored.select(threshold, budget=self.budget, frames=self.frames, markers=self.markers)
            return Draft(stored, selection, position, epoch, annotation)

        return self._intact(select)

    def load(self, draft: Draft) -> StreamSample | None:
        """The sample of a draft."""
        video = self._intact(lambda: draft.stored.read(draft.selection))
        if video is None:
            return None
        return StreamSample(draft.stored.id, video, draft.position, draft.epoch, draft.annotation, self.markers)

    # parts --------------------------------------------------------------------------------------------------

    def _intact(self, read: Callable[[], T]) -> T | None:
        """What `read` gives; where damaged samples are to be skipped, None and a line in the log for such a one."""
        try:
            return read()
        except DamageError as error:
            if self.on_damage == "raise":
                raise
            log.error("sample skipped: %s", error.message)
            return None

    def _epoch_order(self, epoch: int) -> EpochOrder:
        if self._order is None or self._order[0] != epoch:
            key = order_key("epoch", self.seed, epoch) if self._shuffle else None
            self._order = epoch, EpochOrder(self._items.counts, key, self._window)
        return self._order[1]

    def _identify(self) -> str:
        hasher = xxhash.xxh3_64(self.store.index.numbers("id_hash")[self._items.video].tobytes())
        parts = (self._annotations and self._annotations.digest, self.seed, self._shuffle, self._window)
        hasher.update(repr(parts).encode())
        return hasher.hexdigest()

    def _check_budget(self) -> None:
        if self.budget is None or self.frames == "fit" or not self.samples:
            if self.frames == "fit" and self.budget is None:
                raise UsageError('frames="fit" goes with a budget', hint="add budget=")
            return
        frames = self.store.index.numbers("frames")[self._items.video]
        worst = int(np.argmax(frames))
        count = int(frames[worst]) if self.frames is None else min(self.frames, int(frames[worst]))
        rows = self.store.info.grid.rows
        smallest = count * rows + marker_count(self.markers, count, rows)
        if smallest > self.budget:
            name = self.store.index.ids[int(self._items.video[worst])].as_py()
            raise UsageError(
                f"{name} has {count} frames: one token a row and its markers make {smallest}, more than the "
                f"budget of {self.budget}",
                hint='add frames="fit" to drop frames where needed, or a larger budget',
            )


def _thresholds(thresholds: float | Sequence[float] | None, stored: float) -> tuple[float, ...]:
    if thresholds is None:
        return (stored,)
    chosen = (thresholds,) if isinstance(thresholds, int | float) else tuple(thresholds)
    if not chosen:
        raise UsageError("thresholds is empty", hint="give one or more, or leave it out for the stored one")
    if (highest := max(chosen)) > stored and np.float32(highest) > np.float32(stored):
        raise UsageError(
            f"the store holds threshold {stored:g}; {highest:g} lies above it",
            hint=f"encode again with --thresholds up to {highest:g}, or ask for at most {stored:g}",
        )
    return chosen


def _share(rank: int | None, world_size: int | None, block: int) -> Share:
    if (rank is None) != (world_size is None):
        raise UsageError("rank and world_size go together")
    if rank is None or world_size is None:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return Share(rank=rank, ranks=world_size, block=block)
