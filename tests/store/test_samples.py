"""What the scales of int8 tokens must be, when they are written and when a store is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyntok.errors import StoreError
from dyntok.records import Sample
from dyntok.store import StoreRoot, open_shard_writer, samples, verify
from dyntok.store.samples import groups_problem
from dyntok.store.tensorfile import Array
from tests.support.samples import make_info, make_sample, sharded_store

FORMATS = ["webdataset", "zarr"]


def with_value(value: float) -> Callable[[Array], Array]:
    def change(scale: Array) -> Array:
        changed = scale.copy()
        changed[len(scale) // 2] = value
        return changed

    return change


WRONG: dict[str, Callable[[Array], Array | None]] = {
    "negative": with_value(-1e-3),
    "not a number": with_value(np.nan),
    "infinite": with_value(np.inf),
    "one too few": lambda scale: scale[:-1],
    "of another shape": lambda scale: scale[:, None],
    "in float64": lambda scale: scale.astype(np.float64),
    "missing": lambda scale: None,
}


def scaled(sample: Sample, change: Callable[[Array], Array | None]) -> Sample:
    (level,) = sample.levels
    assert level.token_scale is not None
    return replace(sample, levels=(replace(level, token_scale=change(level.token_scale)),))


@pytest.mark.parametrize("wrong", list(WRONG))
def test_scales_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    for shard_format in FORMATS:
        info = make_info(shard_format=shard_format, dtype="int8")
        sample = make_sample(info, "a", frames=3)
        bad = scaled(sample, WRONG[wrong])
        problem = groups_problem(bad.similarity, bad.levels[0], bad.levels[0].token_count, "int8")
        assert problem is not None and problem.startswith("token_scale")
        writer = open_shard_writer(StoreRoot.open(str(tmp_path)), info, 0)
        with pytest.raises(StoreError, match=r"'a' at threshold 0\.6: token_scale"):
            writer.add(bad, position=0, source="x")
        writer.add(sample, position=0, source="x")
        writer.add(scaled(make_sample(info, "zero"), with_value(0.0)), position=1, source="x")
        writer.abort()


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
def test_verify_finds_a_scale_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str, value: float
) -> None:
    """In a shard of a writer that did not look."""

    def careless(*args: object, **options: object) -> Sample:
        return scaled(make_sample(*args, **options), with_value(value))  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("tests.support.samples.make_sample", careless)
        patch.setattr(samples, "groups_problem", lambda *args: None)
        sharded_store(str(tmp_path), [1], info=make_info(shard_format=shard_format, dtype="int8"))
    (finding,) = verify(str(tmp_path)).findings
    assert "at threshold 0.6: token_scale is not one finite, non-negative" in finding.message
