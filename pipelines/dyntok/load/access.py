"""Random access to a store by id: `dyntok.open`."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dyntok.errors import DamageError, StoreError, UsageError
from dyntok.load.order import Int64
from dyntok.merging import (
    MarkerMode,
    VideoTokens,
    coarsen,
    count_tokens,
    marker_count,
    plan_from_similarity,
    threshold_for_budget,
)
from dyntok.store import (
    DatasetInfo,
    ShardReader,
    StoreIndex,
    StoreRoot,
    VideoHead,
    as_torch,
    open_shard_reader,
    parse_safetensors,
)
from dyntok.store.index import hash_id
from dyntok.store.names import MARKER_FILE

OPEN_SHARDS = 16
TORCH_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.bfloat16,
}


def open_store(url: str | os.PathLike[str]) -> Store:
    """Open a store for reading: a folder or an fsspec URL. Nothing but the index is read yet.

    Raises:
        StoreError: there is no store, or its run is not finished.
        StoreVersionError: a newer dyntok wrote it.
    """
    root = StoreRoot.open(os.fspath(url))
    return Store(root, DatasetInfo.load(root), StoreIndex.open(root))


class Store:
    """A mapping of ids to videos. Holds the index and a few open shards; safe to use from one thread at a time.

    Only videos that were encoded are in it; asking for a failed one says why it failed.
    """

    def __init__(self, root: StoreRoot, info: DatasetInfo, index: StoreIndex) -> None:
        self.root = root
        self.info = info
        self.index = index
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        # Open shards stay with this process; a loader's workers open their own.
        return Store, (self.root, self.info, self.index)

    def __len__(self) -> int:
        return len(self.index.done)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        try:
            position = self.index.position(str(video_id))
        except KeyError:
            return False
        return bool(self.index.numbers("row")[position] >= 0)

    def __getitem__(self, video_id: str) -> StoredVideo:
        position = self.index.position(video_id)
        if self.index.numbers("row")[position] < 0:
            _, failed = self.index.row(position)
            raise StoreError(
                f"{video_id} is not in the store: {failed.status}: {failed.error_class}: {failed.error}",
                hint="`dyntok encode ... --retry-failed` tries failed videos again",
            )
        return StoredVideo(self, position)

    def __repr__(self) -> str:
        return f"Store({self.root.url!r}, videos={len(self)}, threshold={self.info.stored_threshold:g})"

    @property
    def ids(self) -> list[str]:
        """Ids of the encoded videos, in the order of the plan."""
        chosen: list[str] = self.index.ids.take(self.index.done).to_pylist()
        return chosen

    @property
    def row_marker(self) -> Tensor | None:
        """The model's row marker (`image_newline`), `[D_llm]` float32; None if the model has none."""
        if not self.root.exists(MARKER_FILE):
            return None
        data = self.root.read_bytes(MARKER_FILE, 2**24)
        return as_torch(parse_safetensors(data, self.root.where(MARKER_FILE))["row_marker"], "float32")

    def reader(self, shard: int) -> ShardReader:
        """The shard's reader; the most recently used ones stay open."""
        if shard in self._readers:
            self._readers.move_to_end(shard)
        else:
            self._readers[shard] = open_shard_reader(self.root, self.info, shard)
            if len(self._readers) > OPEN_SHARDS:
                self._readers.popitem(last=False)
        return self._readers[shard]


@dataclass(frozen=True, slots=True)
class Selection:
    """Frames and threshold chosen for one video.

    Attributes:
        positions: `[T]` int64, the chosen ones of the stored frames, rising.
        threshold: patches merge where similarity > threshold.
        token_count, marker_count: N and M; together the length of the video in a sequence.
    """

    positions: Int64
    threshold: float
    token_count: int
    marker_count: int

    def __len__(self) -> int:
        return self.token_count + self.marker_count


class StoredVideo:
    """One encoded video, at a position of the index. Reads its similarity map when first needed, and tokens only in
    `at`."""

    def __init__(self, store: Store, position: int) -> None:
        self._store = store
        self._position = position
        self._shard, self._row = (int(store.index.numbers(name)[position]) for name in ("shard", "row"))
        self._head: VideoHead | None = None

    @property
    def head(self) -> VideoHead:
        """Everything but the tokens, as stored. Raises StoreError if the store now has another video in its place."""
        if self._head is None:
            reader = self._store.reader(self._shard)
            hashes = [hash_id(held.id) for held in reader.rows[self._row : self._row + 1]]
            if hashes != [self._store.index.numbers("id_hash")[self._position]]:
                raise StoreError(
                    f"shard {self._shard} of {self._store.root.url} was written anew after the store was opened",
                    hint="open the store again",
                )
            self._head = reader.head(self._row)
        return self._head

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def meta(self) -> dict[str, Any]:
        """The sample's JSON: source, model, sampling, the manifest's columns."""
        return self.head.meta

    @property
    def frame_count(self) -> int:
        return self.head.frame_count

    @property
    def similarity(self) -> Tensor:
        """`[T, R, C]` float32, -inf in column 0."""
        return torch.from_numpy(np.array(self.head.similarity))

    def at(
        self,
        threshold: float | None = None,
        *,
        budget: int | None = None,
        frames: int | Literal["fit"] | None = None,
        markers: MarkerMode = "row",
    ) -> VideoTokens:
        """Tokens at a threshold, or at the largest threshold that meets a budget.

        Args:
            threshold: merge where similarity > threshold; by default the stored one. With `budget`, an upper bound.
                Tokens that the explicit layout stores for this threshold are read, not merged again.
            budget: most tokens and markers together, counted exactly.
            frames: a uniform subset of so many of the stored frames; only their bytes are read. With `"fit"`, all of
                them unless one token a row already exceeds the budget: then as many as fit.
            markers: which markers count towards the budget: one a `row`, a `frame`, a `video`, or `none`.

        Returns:
            `VideoTokens`; int8 stores give bfloat16, others the stored dtype. Unmerged tokens of a local WebDataset
            store are views of the mapped file: clone them before writing into them.

        Raises:
            UsageError: the threshold lies above the stored one, where tokens cannot be split again.
            MergeError: even one token a row exceeds the budget; the message gives the smallest possible count.
        """
        return self.read(self.select(threshold, budget=budget, frames=frames, markers=markers))

    def select(
        self,
        threshold: float | None = None,
        *,
        budget: int | None = None,
        frames: int | Literal["fit"] | None = None,
        markers: MarkerMode = "row",
    ) -> Selection:
        """What `at` would read, and how long it is: from the similarity map, without touching a token.

        Arguments and errors are those of `at`.
        """
        stored = self._store.info.stored_threshold
        if threshold is not None and np.float32(threshold) > np.float32(stored):
            raise UsageError(
                f"{self.id} is stored at threshold {stored:g}; {threshold:g} lies above it",
                hint=f"encode again with --thresholds up to {threshold:g}, or ask for at most {stored:g}",
            )
        chosen = stored if threshold is None else threshold
        if frames == "fit":
            frames = self._frames_that_fit(budget, markers)
        positions = self._positions(frames)
        similarity = torch.from_numpy(self.head.similarity[positions])
        marker_total = marker_count(markers, len(positions), self.head.grid.rows)
        if budget is not None:
            chosen = threshold_for_budget(similarity, budget, marker_total, at_most=chosen)
        return Selection(positions, chosen, count_tokens(similarity, [chosen])[0], marker_total)

    def read(self, selection: Selection) -> VideoTokens:
        """The tokens of a selection made by `select` of this video; see `at`."""
        info, head = self._store.info, self.head
        positions, threshold = selection.positions, selection.threshold
        # The stored level that holds exactly these tokens, if there is one; merging compares as float32.
        levels = [np.float32(level) for level in info.level_thresholds]
        number = levels.index(np.float32(threshold)) if np.float32(threshold) in levels else None
        frames = None if len(positions) == self.frame_count else positions
        level = self._store.reader(self._shard).level(self._row, number or 0, frames)
        similarity = torch.from_numpy(head.similarity[positions])
        stored = plan_from_similarity(similarity, level.threshold)
        if stored.token_count != len(level.tokens):
            raise DamageError(
                f"{head.id!r} has {len(level.tokens)} tokens at threshold {level.threshold:g}, its similarity map"
                f" gives {stored.token_count}",
                hint="`dyntok verify` lists all damage; copy the shard again or encode it anew",
            )
        plan = stored if number is not None else plan_from_similarity(similarity, threshold)
        tokens = as_torch(level.tokens, info.dtype)
        if plan.token_count != stored.token_count or level.token_scale is not None:
            scale = None if level.token_scale is None else torch.from_numpy(np.array(level.token_scale))
            out = _empty(plan.token_count, info.token_dim, TORCH_DTYPES[info.dtype])
            tokens = coarsen(tokens, stored, plan, scale=scale, out=out)
        return VideoTokens(
            tokens=tokens,
            group_size=plan.group_size,
            row_splits=plan.row_splits,
            similarity=similarity,
            grid=(head.grid.rows, head.grid.cols),
            threshold=threshold,
            frame_index=torch.from_numpy(head.frames.frame_index[positions]),
            frame_pts=torch.from_numpy(head.frames.frame_pts[positions]),
        )

    def _frames_that_fit(self, budget: int | None, markers: MarkerMode) -> int:
        if budget is None:
            raise UsageError('frames="fit" goes with a budget', hint="add budget=, or give a number of frames")
        rows = self.head.grid.rows
        once = marker_count(markers, 0, rows)
        each = rows + marker_count(markers, 1, rows) - once
        # At least one, so that a budget too small for that is explained where budgets are.
        return max(1, min(self.frame_count, (budget - once) // each))

    def _positions(self, frames: int | None) -> Int64:
        total = self.frame_count
        if frames is None or frames >= total:
            return np.arange(total)
        if frames < 1:
            raise UsageError(f"frames must be at least 1, got {frames}")
        return np.linspace(0, total - 1, frames).astype(np.int64)


def _empty(rows: int, dim: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised `[rows, dim]`.

    From numpy, which asks Linux for huge pages where torch does not: in small ones, the first touch of fresh memory
    takes longer than merging into it.
    """
    memory = np.empty(rows * dim * dtype.itemsize, np.uint8)
    return torch.from_numpy(memory).view(dtype).view(rows, dim)
