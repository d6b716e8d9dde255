"""These tests need lmms-eval, whose environment is its own: `make lmms-eval` makes it and runs them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ROOT / "build" / "lmms-eval"

if importlib.util.find_spec("lmms_eval") is None:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True, slots=True)
class Made:
    """What prepare.py makes: a tiny LLaVA-OneVision with a tokenizer, stores of four clips in both spaces, and one of a
    single clip."""

    checkpoint: Path
    llm: Path
    vision: Path
    one: Path


@pytest.fixture(scope="session")
def made() -> Made:
    return Made(MADE / "checkpoint", MADE / "llm", MADE / "vision", MADE / "one")
