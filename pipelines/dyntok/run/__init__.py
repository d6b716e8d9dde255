"""Runs the whole path: prepares a store, encodes its shards, finishes it, and says how far it is.

Composes `corpus`, `video`, `vision`, `merging` and `store`, which know nothing of each other. Names are loaded when
they are asked for, so that `status` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyntok.run.array import ArrayJob
    from dyntok.run.completing import finalize
    from dyntok.run.encoding import encode
    from dyntok.run.forecast import estimate, freeze
    from dyntok.run.journal import FailedVideo, failed_videos, run_events
    from dyntok.run.progress import RunObserver
    from dyntok.run.repairing import repair
    from dyntok.run.reports import EncodeReport, PlanReport, StatusReport
    from dyntok.run.state import StoreWatch, status

_WHERE = {
    "ArrayJob": "array",
    "EncodeReport": "reports",
    "FailedVideo": "journal",
    "PlanReport": "reports",
    "RunObserver": "progress",
    "StatusReport": "reports",
    "StoreWatch": "state",
    "encode": "encoding",
    "estimate": "forecast",
    "failed_videos": "journal",
    "finalize": "completing",
    "freeze": "forecast",
    "repair": "repairing",
    "run_events": "journal",
    "status": "state",
}

__all__ = [
    "ArrayJob",
    "EncodeReport",
    "FailedVideo",
    "PlanReport",
    "RunObserver",
    "StatusReport",
    "StoreWatch",
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
