"""Which stored video a benchmark's path means."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from dyntok.errors import StoreError, UsageError
from dyntok.load import Store

ID_RULES = ("auto", "path", "name", "stem")
_LISTED = 3


class VideoFinder:
    """Finds the store's id for a path that a benchmark names: the file may lie under any root, or be gone.

    Rules, the first that finds something wins:

    - `path`: the longest end of the path that is an id (`a/b/c.mp4`, `b/c.mp4`, `c.mp4`);
    - `name`: the one id whose last part is the file's name;
    - `stem`: the one id whose last part, without its suffix, is the file's name without its own.

    `auto` tries all three, in this order.
    """

    def __init__(self, store: Store, rule: str = "auto") -> None:
        if rule not in ID_RULES:
            raise UsageError(f"id_from={rule} is no rule", hint=f"id_from is one of {', '.join(ID_RULES)}")
        self._store = store
        self._rules = ID_RULES[1:] if rule == "auto" else (rule,)
        self._known: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str:
        """The id of an encoded video.

        Raises:
            UsageError: a rule finds several ids.
            StoreError: none finds any, or the video failed to encode; the message names the path and what was tried.
        """
        for rule in self._rules:
            found = self._by_end(path) if rule == "path" else self._by_last_part(rule, path)
            if len(found) > 1:
                raise UsageError(
                    f"{path} could be {len(found)} videos of the store by {rule}: {_some(found)}",
                    hint="encode with ids that are ends of the benchmark's paths, or choose another id_from",
                )
            if found:
                self._store[found[0]]  # raises for a video that failed, with its reason
                return found[0]
        raise StoreError(
            f"{path} is not in the store; tried {', '.join(self._rules)} against ids like "
            f"{_some(self._store.index.ids[:_LISTED].to_pylist())}",
            hint="encode the benchmark's videos, or choose the rule with id_from",
        )

    def _by_end(self, path: str) -> list[str]:
        parts = _parts(path)
        ends = [path, *("/".join(parts[first:]) for first in range(len(parts)))]
        return next(([end] for end in ends if self._is_known(end)), [])

    def _by_last_part(self, rule: str, path: str) -> list[str]:
        if rule not in self._known:
            ids: dict[str, list[str]] = defaultdict(list)
            for video_id in self._store.index.ids.to_pylist():
                ids[_last_part(rule, video_id)].append(video_id)
            self._known[rule] = dict(ids)
        return self._known[rule].get(_last_part(rule, path), [])

    def _is_known(self, video_id: str) -> bool:
        try:
            self._store.index.position(video_id)
        except KeyError:
            return False
        return True


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/")


def _last_part(rule: str, path: str) -> str:
    name = PurePosixPath(path.replace("\\", "/"))
    return name.name if rule == "name" else name.stem


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:_LISTED]) + (", ..." if len(ids) > _LISTED else "")
