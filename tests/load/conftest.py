"""A small store of several shards, and questions about its videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dyntok
from dyntok.load import Store
from tests.support.samples import sharded_store

COUNTS = [4, 1, 6, 3, 5]
FAILED = ("s0/v1.mp4", "s3/v2.mp4")


@pytest.fixture(scope="session")
def many_url(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "out"
    sharded_store(str(folder), COUNTS, failed=FAILED)
    return folder


@pytest.fixture
def many(many_url: Path) -> Store:
    """17 videos in five shards, two more that failed; grid 3 x 5, 1 to 4 frames, 8 dimensions."""
    return dyntok.open(many_url)


def questions(ids: list[str]) -> list[dict[str, Any]]:
    """LLaVA's format, two rows a video, in an order that is not the store's."""
    return [
        {
            "id": f"{number}-{video_id}",
            "video": video_id,
            "conversations": [
                {"from": "human", "value": f"<image>\nquestion {number} of {video_id}"},
                {"from": "gpt", "value": f"answer {number}"},
            ],
        }
        for number in range(2)
        for video_id in reversed(ids)
    ]
