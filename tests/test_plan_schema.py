"""The plan is read alike by those who encode from it and by those who hold a store against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dyntok.corpus import FrozenPlan
from dyntok.errors import DamageError, StoreVersionError
from dyntok.plan_schema import SCHEMA, VERSION_KEY
from dyntok.records import PlanEntry
from dyntok.store import StoreRoot
from dyntok.store.plan_rows import plan_rows
from tests.corpus.helpers import missing_item, plan_bytes

READERS: list[Callable[[Path], Iterable[PlanEntry]]] = [
    lambda folder: FrozenPlan.open(folder / "plan.parquet").entries(),
    lambda folder: plan_rows(StoreRoot.open(str(folder))),
]


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    content = plan_bytes([missing_item(f"v{i}") for i in range(5)], shard_size_bytes=2)
    (tmp_path / "plan.parquet").write_bytes(content)
    return pq.read_table(tmp_path / "plan.parquet")


def test_both_readers_give_the_same_entries(table: pa.Table, tmp_path: Path) -> None:
    first, second = (list(read(tmp_path)) for read in READERS)
    assert first == second
    assert [entry.id for entry in first] == table["id"].to_pylist()


@pytest.mark.parametrize("read", READERS, ids=["corpus", "store"])
@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_missing_column_is_damage(
    column: str, read: Callable[[Path], Iterable[PlanEntry]], table: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(table.drop_columns([column]), tmp_path / "plan.parquet")
    with pytest.raises(DamageError, match="columns"):
        list(read(tmp_path))


@pytest.mark.parametrize("read", READERS, ids=["corpus", "store"])
def test_a_newer_plan_is_no_damage(
    read: Callable[[Path], Iterable[PlanEntry]], table: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"2"}), tmp_path / "plan.parquet")
    with pytest.raises(StoreVersionError, match="version 2"):
        list(read(tmp_path))
