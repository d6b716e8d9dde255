"""Writing a file aside and putting it in place once it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from dyntok.durable import fsync_path


@contextmanager
def replacing(out: BinaryIO | str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A readable and writable scratch file that takes the place of `out`, or is copied to it, without an error.

    A path is replaced in one step (written beside it, synced, renamed), so a crash leaves the old file.
    """
    if not isinstance(out, (str, os.PathLike)):
        with tempfile.TemporaryFile() as scratch:
            yield cast(BinaryIO, scratch)
            scratch.seek(0)
            shutil.copyfileobj(scratch, out, 1024 * 1024)
        return
    target = Path(out)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w+b") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
        fsync_path(target.parent)
    finally:
        aside.unlink(missing_ok=True)
