"""`logs/`: what a run did and when. Nothing else in a store holds a clock."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from typing import Any

from dyntok.store import StoreRoot
from dyntok.store.names import LOG_FOLDER
from dyntok.store.root import explain_os_error


class RunLog:
    """One JSON object a line. Written as it happens on a local store, at the end on an object store."""

    def __init__(self, root: StoreRoot) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._root = root
        self._path = f"{LOG_FOLDER}/run-{stamp}-{os.getpid()}.jsonl"
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._local = root.local_path(self._path)
        if self._local is not None:
            with explain_os_error(str(self._local), "write"):
                self._local.parent.mkdir(exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the current time. Raises StoreError when the disk is full."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **fields}, sort_keys=True)
        with self._lock:
            if self._local is None:
                self._lines.append(line)
                return
            with (
                explain_os_error(str(self._local), "write"),
                open(self._local, "a", encoding="utf-8") as file,
            ):
                file.write(line + "\n")

    def close(self) -> None:
        if self._lines:
            self._root.write_atomic(self._path, ("\n".join(self._lines) + "\n").encode())
            self._lines.clear()
