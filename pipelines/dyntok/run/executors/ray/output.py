"""What a process prints, kept so that each shard's part can be told apart."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from pathlib import Path

MOST_BYTES = 64 * 2**10


class CapturedOutput:
    """Sends stdout and stderr of this process, and of its children, into a file as well as where they went.

    Works below Python, so that what C libraries and decode processes print is caught. What was printed goes on to the
    old stderr whenever it is read here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = os.dup(2)
        self._passed_on = 0
        self._lock = threading.Lock()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.close(handle)
        faulthandler.enable(2)

    def position(self) -> int:
        """How many bytes have been printed up to now."""
        return os.fstat(2).st_size

    def since(self, position: int) -> str:
        """What was printed since, at most its last 64 KiB."""
        with self._lock:
            self._pass_on()
        return read_output(self._path, position)

    def _pass_on(self) -> None:
        end = self.position()
        with self._path.open("rb") as file:
            file.seek(max(self._passed_on, end - MOST_BYTES))
            data = file.read(end - file.tell())
        self._passed_on = end
        while data:
            data = data[os.write(self._before, data) :]


def read_output(path: Path, position: int, most_bytes: int = MOST_BYTES) -> str:
    """Text of a file from a byte on, at most its last `most_bytes`; empty if the file is gone."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(position, end - most_bytes))
            return file.read(most_bytes).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
