from __future__ import annotations

from collections.abc import Iterator

import pytest

from dyntok.objects import Patience, Remote
from tests.support.faulty_fs import FaultyFileSystem, faulty_store

QUICK = Patience(tries=4, first_wait_s=0.001, longest_wait_s=0.002)


@pytest.fixture
def faulty() -> Iterator[type[FaultyFileSystem]]:
    with faulty_store() as store:
        yield store


@pytest.fixture
def remote(faulty: type[FaultyFileSystem]) -> Remote:
    return Remote.open("faulty://bucket", QUICK)[0]
