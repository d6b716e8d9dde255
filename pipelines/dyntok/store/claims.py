"""Files that several processes may make at the same moment, and of which the first one counts."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from dyntok.durable import fsync_path
from dyntok.store.root import StoreRoot, explain_os_error

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def claim_file(root: StoreRoot, local_tmp: Path, path: str) -> bool:
    """Move or upload a finished temporary file to `path`, unless something is there. Whether this call did.

    Exact on local folders (a hard link, which never replaces a file) and on object stores with conditional writes
    (S3, GCS). Where neither exists, the look and the write are two steps.

    Raises StoreError where writing fails.
    """
    target = root.local_path(path)
    with explain_os_error(root.where(path), "write"):
        if target is None:
            made = root.upload_new(local_tmp, path)
        else:
            fsync_path(local_tmp)
            target.parent.mkdir(parents=True, exist_ok=True)
            made = _link_new(local_tmp, target)
            fsync_path(target.parent)
        with suppress(FileNotFoundError):
            local_tmp.unlink()
    return made


def claim_bytes(root: StoreRoot, data: bytes, path: str) -> bool:
    """`claim_file` for a small file whose content is at hand."""
    temporary = root.scratch_dir() / f"{uuid.uuid4().hex}.part"
    with explain_os_error(str(temporary), "write"):
        temporary.write_bytes(data)
    return claim_file(root, temporary, path)


def _link_new(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            return False
        source.rename(target)
    return True
