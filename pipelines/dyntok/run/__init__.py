"""Runs the whole path: prepares a store, encodes its shards, finishes it, and says how far it is.

Composes `corpus`, `video`, `vision`, `merging` and `store`, which know nothing of each other. Names are loaded when
they are asked for, so that `status` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyntok.run.array import ArrayJob
    from dyntok.run.converting import convert
    from dyntok.run.encoding import encode
    from dyntok.run.finalizing import finalize
    from dyntok.run.planning import estimate, freeze
    from dyntok.run.repairing import repair
    from dyntok.run.tell.observer import RunObserver
    from dyntok.run.watch.logs import FailedVideo, failed_videos, run_events
    from dyntok.run.watch.reports import EncodeReport, PlanReport, StatusReport
    from dyntok.run.watch.status import StoreWatch, status

_WHERE = {
    "ArrayJob": "array",
    "EncodeReport": "watch.reports",
    "FailedVideo": "watch.logs",
    "PlanReport": "watch.reports",
    "RunObserver": "tell.observer",
    "StatusReport": "watch.reports",
    "StoreWatch": "watch.status",
    "convert": "converting",
    "encode": "encoding",
    "estimate": "planning",
    "failed_videos": "watch.logs",
    "finalize": "finalizing",
    "freeze": "planning",
    "repair": "repairing",
    "run_events": "watch.logs",
    "status": "watch.status",
}

__all__ = [
    "ArrayJob",
    "EncodeReport",
    "FailedVideo",
    "PlanReport",
    "RunObserver",
    "StatusReport",
    "StoreWatch",
    "convert",
    "encode",
    "estimate",
    "failed_videos",
    "finalize",
    "freeze",
    "repair",
    "run_events",
    "status",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
