"""Where a store and a model would lie: what can be done there, how much fits, how fast it is."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dyntok_cli.checks.finding import BAD, OK, WARN, Check, imported
from dyntok_cli.tables import several, size

LITTLE_DISK = 2 * 10**9
LITTLE_FOR_A_MODEL = 20 * 10**9
SLOW_BYTES_PER_S = 50 * 10**6
PROBE_BYTES = 64 * 10**6
PROBE_SECONDS = 5.0
_CHUNK = 4 * 10**6


def writing(folder: Path) -> Iterator[Check]:
    """Whether a store can be written to a folder: create, sync, rename, lock, and the room left."""
    there = _existing(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".dyntok-doctor-", dir=there) as scratch:
            locked = _try_commit(Path(scratch))
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "choose another --out, or make the folder writable for this user"
        yield Check("folder", BAD, f"cannot write to {there}: {reason}", hint)
        return
    if locked:
        yield Check("folder", OK, f"{there.absolute()}: files can be written, synced, renamed and locked")
    else:
        yield Check(
            "folder",
            WARN,
            f"{there.absolute()} has no file locks: nothing keeps two runs from writing to one store",
            "run one encode at a time on a store there",
        )
    free = shutil.disk_usage(there).free
    state, hint = (WARN, "`dyntok plan` says how much a run needs") if free < LITTLE_DISK else (OK, "")
    yield Check("disk", state, f"{size(free)} free at {there.absolute()}", hint)


def speed(folder: Path) -> Iterator[Check]:
    """How fast a folder takes and gives bytes: one file of 64 MB, or as much as five seconds allow."""
    there = _existing(folder)
    try:
        if shutil.disk_usage(there).free < 4 * PROBE_BYTES:
            return
        with tempfile.TemporaryDirectory(prefix=".dyntok-doctor-", dir=there) as scratch:
            written, written_per_s, read_per_s = _probe(Path(scratch, "probe"))
    except OSError:  # `writing` has said why
        return
    found = f"{size(written_per_s)}/s written and synced, {size(read_per_s)}/s read ({size(written)})"
    if written_per_s < SLOW_BYTES_PER_S:
        hint = "put --out on another disk if `dyntok status` names the writer as the bottleneck"
        yield Check("disk speed", WARN, found, hint)
    else:
        yield Check("disk speed", OK, found)


def model_cache() -> Iterator[Check]:
    """Where checkpoints of the hub lie, how many there are, and the room for more."""
    hub = imported("huggingface_hub")
    if hub is None:
        return
    offline = bool(hub.constants.HF_HUB_OFFLINE)
    cache = Path(hub.constants.HF_HUB_CACHE)
    there = _existing(cache)
    try:
        models = sum(1 for _ in cache.glob("models--*"))
        free = shutil.disk_usage(there).free
    except OSError as error:
        hint = "set HF_HOME to a folder that this user may write to"
        yield Check("model cache", WARN, f"cannot read {cache}: {error.strerror or error}", hint)
        return
    mode = "offline (HF_HUB_OFFLINE is set), " if offline else ""
    found = f"{mode}{several(models, 'model')} in {cache}, {size(free)} free"
    if not offline and not os.access(there, os.W_OK):
        hint = "set HF_HOME to a folder that this user may write to"
        yield Check("model cache", WARN, f"{found}, not writable", hint)
    elif not offline and free < LITTLE_FOR_A_MODEL:
        hint = "set HF_HOME to a disk with room; --model demo and local folders need none"
        yield Check("model cache", WARN, f"{found}; a 7B checkpoint takes some 16 GB", hint)
    else:
        yield Check("model cache", OK, found)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path("/"))


def _probe(file: Path) -> tuple[int, float, float]:
    """Bytes written, and bytes a second of writing with fsync and of reading. Raises OSError."""
    chunk = os.urandom(_CHUNK)  # some file systems compress
    written, start = 0, time.monotonic()
    with open(file, "wb", buffering=0) as out:
        while written < PROBE_BYTES and time.monotonic() - start < PROBE_SECONDS:
            written += out.write(chunk)
        os.fsync(out.fileno())
    write_s = time.monotonic() - start
    with open(file, "rb", buffering=0) as back:
        if hasattr(os, "posix_fadvise"):  # not what memory still holds
            os.posix_fadvise(back.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        while back.read(_CHUNK):
            pass
    read_s = time.monotonic() - start
    return written, written / max(write_s, 1e-9), written / max(read_s, 1e-9)


def _try_commit(scratch: Path) -> bool:
    """Write as a store does. Returns whether files can be locked; raises OSError."""
    part, final = scratch / "part", scratch / "final"
    with open(part, "wb") as file:
        file.write(b"dyntok")
        file.flush()
        os.fsync(file.fileno())
    part.rename(final)
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with open(final, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
