"""SHA-256 of what is being written, taken beside the writing: it is the slowest step of writing a tar."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

_WORTH_A_THREAD = 2**18  # bytes; below, handing over takes longer than hashing


class BesideSha256:
    """A SHA-256 whose large updates run in a thread of their own, one at a time and in order.

    What was passed to `update` must not change before the next call of any method returns. `close` ends the thread.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Take in `data`; waits for the update before."""
        sha = self._settled()
        if len(data) < _WORTH_A_THREAD:
            sha.update(data)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sha256")
        self._running = self._thread.submit(sha.update, data)

    def hexdigest(self) -> str:
        """Digest of all that was passed so far."""
        return self._settled().hexdigest()

    def state(self) -> _Hash:
        """What `restore` goes back to."""
        return self._settled().copy()

    def restore(self, state: _Hash) -> None:
        """Forget what was passed after `state` was taken."""
        self._settled()
        self._sha = state.copy()

    def close(self) -> None:
        """End the thread. The digest can still be asked for."""
        self._settled()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _settled(self) -> _Hash:
        if self._running is not None:
            running, self._running = self._running, None
            running.result()
        return self._sha
