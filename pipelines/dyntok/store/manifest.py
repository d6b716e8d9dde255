"""`manifest.json`: digest and size of every file of a complete store, and its own."""

from __future__ import annotations

from dataclasses import dataclass

from dyntok.errors import DamageError, StoreError
from dyntok.records import FileDigest
from dyntok.store.completion import iter_files
from dyntok.store.dataset import unsign_versioned
from dyntok.store.names import FORMAT_VERSION, MANIFEST_FILE, check_path, is_ignored
from dyntok.store.root import StoreRoot
from dyntok.store.signed import digest_file, files_from_json, files_json, sign

_MAX_BYTES = 2**31


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of a store but the manifest, logs, temporary files and the lock; by path."""

    files: tuple[FileDigest, ...]

    @classmethod
    def load(cls, root: StoreRoot) -> Manifest | None:
        """The manifest, None if there is none (the store is not complete). Raises DamageError."""
        if not root.exists(MANIFEST_FILE):
            return None
        where = root.where(MANIFEST_FILE)
        content = unsign_versioned(root.read_bytes(MANIFEST_FILE, _MAX_BYTES), where)
        try:
            files = files_from_json(content["files"])
            for file in files:
                check_path(file.path)
        except (KeyError, TypeError, StoreError) as error:
            raise DamageError(f"{where} is no valid manifest: {error}") from error
        return cls(files)


def write_manifest(root: StoreRoot) -> Manifest:
    """Write the manifest of a store whose run is complete.

    Digests of shards come from their completion records, where they were computed while writing; all other files
    are read.

    Raises StoreError if a file that a record names is missing or has another size.
    """
    sizes = {path: size for path, size in root.sizes().items() if not is_ignored(path) and path != MANIFEST_FILE}
    committed: dict[str, FileDigest] = {}
    for shard, files in iter_files(root):
        for file in files:
            if sizes.get(file.path) != file.bytes:
                raise DamageError(
                    f"{root.where(file.path)} has {sizes.get(file.path, 'no')} bytes, {file.bytes} were written",
                    hint=f"remove the record of shard {shard} and run the same command again",
                )
            committed[file.path] = file
    manifest = Manifest(tuple(committed.get(path) or digest_file(root, path) for path in sizes))
    content = {"format_version": FORMAT_VERSION, "files": files_json(manifest.files)}
    root.write_atomic(MANIFEST_FILE, sign(content))
    return manifest
