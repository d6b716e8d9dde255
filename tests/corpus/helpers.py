"""Small corpora for the tests of `dyntok.corpus`. Content is arbitrary where only names and sizes matter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dyntok.corpus import CorpusItem, FrozenPlan, append_entries, freeze_plan
from dyntok.records import PlanEntry, SourceRef


def write_files(folder: Path, *names: str) -> None:
    """Files whose content is their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def missing_item(video_id: str, path: str = "/nowhere/at/all.mp4") -> CorpusItem:
    """An item that needs no file: it is planned as unreadable."""
    return CorpusItem(video_id, video_id, SourceRef(path), None)


def appended(plan: FrozenPlan, items: Iterable[CorpusItem | PlanEntry], **options: Any) -> bytes:
    """The content of a plan with more rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.parquet")
        append_entries(plan, items, out, **options)
        return out.read_bytes()


def plan_bytes(
    items: Iterable[CorpusItem],
    estimate: Callable[[CorpusItem], int] = lambda item: 1,
    shard_size_bytes: int = 10,
    **options: Any,
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.parquet")
        freeze_plan(items, out, estimate_bytes=estimate, shard_size_bytes=shard_size_bytes, **options)
        return out.read_bytes()


def plan_of(items: Iterable[CorpusItem], **options: Any) -> FrozenPlan:
    return FrozenPlan.open(plan_bytes(items, **options))
