"""`list_inputs`: from what the user wrote to a stream of items."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence

from dyntok.corpus import access, folders, manifests, tars
from dyntok.corpus.items import CorpusItem, OnSkip, check_name, printable
from dyntok.errors import InputError
from dyntok.records import SourceRef

_COMPRESSED_TARS = (
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
    ".tar.lz4",
)
_QUOTE = "check the path; quote patterns so that the shell leaves them alone: 'clips/**/*.mp4'"

_Listing = Callable[[], Iterator[CorpusItem]]


def list_inputs(inputs: Sequence[str], *, on_skip: OnSkip | None = None) -> Iterator[CorpusItem]:
    """Every video of the inputs, as a stream in a fixed order.

    An input is a file, a folder, a glob (`**` is any number of folders), a manifest (`.jsonl`, `.csv`,
    `.parquet`) or an uncompressed `.tar` of videos, local or an fsspec URL. Inputs keep their order; folders and
    globs list in the order of their relative paths, manifests and tars in their own. A file that is named is
    taken whatever its suffix; folders, globs without a suffix and tars give files with a video's suffix
    (`VIDEO_SUFFIXES`), and report to `on_skip(what, why)` what they pass over: `hidden`, `suffix`, `special` (no
    regular file) or `loop` (a link to a folder that holds it).

    The default id is the path relative to the folder, to the fixed part of the glob, to the manifest or within
    the tar, with `/` separators and suffix; a single file's is its name. Control characters in it are
    percent-encoded. Ids may clash between inputs; `freeze_plan` finds that.

    Raises `InputError`: at once for an input that does not exist, while listing for what cannot be listed.
    """
    if isinstance(inputs, str) or not inputs:
        raise InputError("no inputs are given", hint="name a file, folder, glob, manifest or tar in a list")
    listings = [_resolve(os.fspath(text), on_skip) for text in inputs]
    return (item for listing in listings for item in listing())


def _resolve(text: str, on_skip: OnSkip | None) -> _Listing:
    if not text:
        raise InputError("an input is empty", hint="name a file, folder, glob, manifest or tar")
    check_name(text)
    path = access.canonical(text)
    kind = access.kind(path)
    if kind == "file":
        return _file_listing(path, on_skip)
    if kind == "folder":
        return lambda: folders.list_tree(folders.tree(path), folders.Pattern("**"), on_skip)
    if kind == "special":
        raise InputError(f"{printable(path)} is neither a file nor a folder", hint="copy its content to a file")
    if folders.is_glob(text) and not access.is_http(path):
        return lambda: _glob(path, on_skip)
    raise InputError(f"{printable(access.redact(text))} does not exist", hint=_QUOTE)


def _file_listing(path: str, on_skip: OnSkip | None) -> _Listing:
    """A file by its suffix: manifest, tar, or a video."""
    name = posixpath.basename(access.redact(path))
    if name.lower().endswith(_COMPRESSED_TARS):
        raise InputError(
            f"{printable(name)} is a compressed tar: its members cannot be read in place",
            hint="decompress it first, for example with gunzip or unzstd",
        )
    if name.lower().endswith(".tar"):
        return lambda: tars.list_tar(path, on_skip)
    if manifests.suffix_of(path) in manifests.SUFFIXES:
        return lambda: manifests.list_manifest(path)
    return lambda: iter([CorpusItem.looked_at(printable(name), printable(name), SourceRef(path))])


def _glob(path: str, on_skip: OnSkip | None) -> Iterator[CorpusItem]:
    root, text = folders.split_glob(path)
    pattern = folders.Pattern(text)
    shown = printable(access.redact(path))
    if access.kind(root) != "folder":
        raise InputError(f"{shown} matches nothing: {printable(access.redact(root))} is no folder", hint=_QUOTE)
    tree = folders.tree(root)
    empty = True
    if pattern.suffix == ".tar" or pattern.suffix in manifests.SUFFIXES:
        for found in folders.walk(tree, pattern, on_skip):
            empty = False
            yield from _file_listing(found.path, on_skip)()
    else:
        for item in folders.list_tree(tree, pattern, on_skip):
            empty = False
            yield item
    if empty:
        raise InputError(f"{shown} matches no video", hint=_QUOTE)
