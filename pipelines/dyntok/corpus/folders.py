"""Folders and globs, local and remote. A folder is the pattern `**`; one walker serves both.

The order is that of the relative paths as text, so a local copy and its mirror in an object store list alike.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from dyntok.corpus import access
from dyntok.corpus.access import FileStat
from dyntok.corpus.items import (
    CorpusItem,
    OnSkip,
    check_name,
    has_video_suffix,
    printable,
)
from dyntok.corpus.pooled import ordered_map
from dyntok.errors import InputError
from dyntok.objects import object_info
from dyntok.records import SourceRef

_STAT_JOBS = 16
_MAGIC = re.compile(r"[*?\[]")
_LITERAL_SUFFIX = re.compile(r".*(\.[A-Za-z0-9]+)")


@dataclass(frozen=True, slots=True)
class Found:
    """A file below a root: its path relative to it, the path that opens it, and its stat where known."""

    relative: str
    path: str
    stat: FileStat | None


class Pattern:
    """A glob over path segments: `*`, `?` and `[...]` stay within one, `**` is any number of folders.

    Names that begin with a dot match only a segment that spells out the dot, as in a shell.
    """

    def __init__(self, text: str) -> None:
        segments = [segment for segment in text.split("/") if segment not in ("", ".")]
        self._segments = segments
        self._regexes = [None if s == "**" else re.compile(fnmatch.translate(s)) for s in segments]
        self.start = self._closure({0})
        suffix = _LITERAL_SUFFIX.fullmatch(segments[-1]) if segments else None
        self.suffix = suffix[1].lower() if suffix else None

    def _closure(self, states: set[int]) -> frozenset[int]:
        for state in sorted(states):
            while state < len(self._regexes) and self._regexes[state] is None:
                state += 1
                states.add(state)
        return frozenset(states)

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """The segments that may come after `name`; empty if nothing below it can match."""
        after: set[int] = set()
        for state in states:
            if state == len(self._regexes):
                continue
            regex = self._regexes[state]
            if name.startswith(".") and not self._segments[state].startswith("."):
                continue
            if regex is None:
                after.add(state)
            elif regex.match(name):
                after.add(state + 1)
        return self._closure(after)

    def accepts(self, states: frozenset[int]) -> bool:
        """Whether a path that led to `states` matches as a whole."""
        return len(self._regexes) in states

    def goes_on(self, states: frozenset[int]) -> bool:
        """Whether something below a folder that led to `states` may match."""
        return any(state < len(self._regexes) for state in states)


class Tree(Protocol):
    """A folder whose files can be listed."""

    def children(self, relative: str, on_skip: OnSkip | None) -> dict[str, FileStat | None]:
        """Names in a folder below the root; those of folders end with `/`."""

    def path(self, relative: str) -> str:
        """What opens a file below the root."""

    def identity(self, relative: str) -> object:
        """Equal for a folder and a link to it; None where there are no links."""


class LocalTree:
    """A folder of this machine."""

    def __init__(self, root: str) -> None:
        self._root = root

    def path(self, relative: str) -> str:
        return os.path.join(self._root, relative) if relative else self._root  # noqa: PTH118

    def identity(self, relative: str) -> object:
        try:
            result = os.stat(self.path(relative))  # noqa: PTH116
        except OSError:
            return None  # listing it says why
        return result.st_dev, result.st_ino

    def children(self, relative: str, on_skip: OnSkip | None) -> dict[str, FileStat | None]:
        names: dict[str, FileStat | None] = {}
        try:
            with os.scandir(self.path(relative)) as entries:
                for entry in entries:
                    if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112
                        names[entry.name + "/"] = None
                    elif _is_file_or_dangling(entry):
                        names[entry.name] = None
                    elif on_skip:
                        on_skip(printable(relative + entry.name), "special")
        except OSError as error:
            raise InputError(
                f"cannot list {printable(self.path(relative))}: {error.strerror}",
                hint="check the permissions",
            ) from error
        return names


class RemoteTree:
    """A folder or prefix of an fsspec file system."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self._store, inner = access.remote(url)
        self._root = inner.rstrip("/")

    def path(self, relative: str) -> str:
        return f"{self._url}/{relative}" if not self._url.endswith("://") else self._url + relative

    def identity(self, relative: str) -> object:
        return None

    def children(self, relative: str, on_skip: OnSkip | None) -> dict[str, FileStat | None]:
        folder = f"{self._root}/{relative}".rstrip("/")
        try:
            infos = self._store.children(folder)
        except access.READ_ERRORS as error:
            raise InputError(
                f"cannot list {access.redact(self.path(relative))}: {access.describe(error)}",
                hint="check the address, the credentials and the network",
            ) from error
        names: dict[str, FileStat | None] = {}
        for info in infos:
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            if str(info["name"]).strip("/") == folder.strip("/") or not name:
                continue  # the empty object that stands for the folder itself
            if info.get("type") == "directory":
                names[name + "/"] = None
            else:
                names[name] = access.stat_of_info(object_info(self._store.protocol, info))
        return names


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    """A dangling link counts: it ends as failed, not as missing."""
    if entry.is_symlink():
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113
    return entry.is_file()


def is_glob(path: str) -> bool:
    """Whether a path holds `*`, `?` or `[`."""
    return _MAGIC.search(path) is not None


def split_glob(path: str) -> tuple[str, str]:
    """The fixed folder of a glob and the pattern below it: `/data/2024/*/a*.mp4` -> `/data/2024`, `*/a*.mp4`."""
    scheme, separator, rest = path.rpartition("://")
    segments = rest.split("/")
    fixed = next(i for i, segment in enumerate(segments) if _MAGIC.search(segment))
    root = "/".join(segments[:fixed])
    if not separator:
        root = root or ("/" if rest.startswith("/") else ".")
    return scheme + separator + root, "/".join(segments[fixed:])


def tree(path: str) -> Tree:
    """The tree of a canonical path."""
    return LocalTree(path) if access.url_protocol(path) is None else RemoteTree(path)


def walk(root: Tree, pattern: Pattern, on_skip: OnSkip | None = None) -> Iterator[Found]:
    """Files that match, in the order of their relative paths. Links to folders are followed, loops are not."""
    stack = [(root.identity(""), _level(root, "", pattern, pattern.start, on_skip))]
    while stack:
        step = next(stack[-1][1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, Found):
            yield step
        else:
            relative, states = step
            identity = root.identity(relative)
            if identity is not None and any(identity == above for above, _ in stack):
                if on_skip:
                    on_skip(printable(relative), "loop")
                continue
            stack.append((identity, _level(root, relative, pattern, states, on_skip)))


def _level(
    root: Tree, relative: str, pattern: Pattern, states: frozenset[int], on_skip: OnSkip | None
) -> Iterator[Found | tuple[str, frozenset[int]]]:
    children = root.children(relative, on_skip)
    for name in sorted(children):
        after = pattern.step(states, name.rstrip("/"))
        path = relative + name
        if name.endswith("/") and pattern.goes_on(after):
            yield path, after
        elif not name.endswith("/") and pattern.accepts(after):
            yield Found(path, root.path(path), children[name])
        elif name.startswith(".") and on_skip:
            on_skip(printable(path), "hidden")


def list_tree(root: Tree, pattern: Pattern, on_skip: OnSkip | None = None) -> Iterator[CorpusItem]:
    """The videos below a root that match a pattern.

    Only files with a known video suffix count, unless the pattern spells a suffix out (`*.dat`).
    The id and the source are the path relative to the root.
    """
    by_suffix = pattern.suffix is None
    return ordered_map(_item, _videos(walk(root, pattern, on_skip), by_suffix, on_skip), jobs=_STAT_JOBS)


def _videos(found: Iterator[Found], by_suffix: bool, on_skip: OnSkip | None) -> Iterator[Found]:
    for file in found:
        if by_suffix and not has_video_suffix(file.relative):
            if on_skip:
                on_skip(printable(file.relative), "suffix")
            continue
        check_name(file.path)
        yield file


def _item(file: Found) -> CorpusItem:
    name, ref = printable(file.relative), SourceRef(file.path)
    if file.stat is None:
        return CorpusItem.looked_at(name, name, ref)
    return CorpusItem(name, name, ref, file.stat.size_bytes, file.stat.etag)
