"""The samples of a stream: videos of a store, or annotations joined to them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dyntok.load.access import Store
from dyntok.load.annotations import Annotations
from dyntok.load.order import Int64

log = logging.getLogger("dyntok")


@dataclass(frozen=True, slots=True)
class Items:
    """The samples: index position of each one's video and its annotation row, `[n]`; `counts [S]` samples a shard.

    `lost` are the rows of the annotations (or the index positions) that the store cannot serve.
    """

    video: Int64
    annotation: Int64
    counts: Int64
    lost: Int64
    lost_position: Int64

    def unavailable(self, store: Store, annotations: Annotations | None) -> Iterator[tuple[str, str]]:
        for number, position in zip(self.lost.tolist(), self.lost_position.tolist(), strict=True):
            if position < 0 and annotations is not None:
                yield annotations.ids[number].as_py(), "not an input of the store"
            else:
                _, row = store.index.row(position)
                yield row.id, f"{row.status}: {row.error_class}: {row.error}"

    def log_unavailable(self, store: Store) -> None:
        if not len(self.lost):
            return
        known = self.lost_position[self.lost_position >= 0]
        classes = Counter(store.index.column("error_class").take(pa.array(known)).to_pylist())
        if unknown := len(self.lost) - len(known):
            classes["not in the store"] = unknown
        reasons = ", ".join(f"{name} {count}" for name, count in classes.most_common())
        log.warning(
            "%d of %d samples are not available (%s); stream.unavailable() lists them",
            len(self.lost),
            len(self.lost) + len(self.video),
            reasons,
        )


def join_items(store: Store, annotations: Annotations | None, shuffle: bool) -> Items:
    index = store.index
    rows = index.numbers("row")
    if annotations is None:
        video = np.arange(len(rows), dtype=np.int64)
    else:
        found = pc.index_in(annotations.ids, value_set=index.ids.combine_chunks())
        video = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    available = (video >= 0) & (rows[np.maximum(video, 0)] >= 0) if len(rows) else np.zeros(len(video), bool)
    lost = np.flatnonzero(~available)
    kept = np.flatnonzero(available)
    shards = index.numbers("shard")[video[kept]]
    if shuffle:
        by_place = np.lexsort((rows[video[kept]], shards))
        kept, shards = kept[by_place], shards[by_place]
    _, counts = np.unique(shards, return_counts=True)
    return Items(video[kept], kept, counts.astype(np.int64), lost, video[lost])
