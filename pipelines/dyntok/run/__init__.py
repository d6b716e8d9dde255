"""Runs the whole path: prepares a store, encodes its shards, finishes it, and says how far it is.

Composes `corpus`, `video`, `vision`, `merging` and `store`, which know nothing of each other. Names are loaded when
they are asked for, so that `status` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyntok.run.array import ArrayJob as ArrayJob
    from dyntok.run.converting import convert as convert
    from dyntok.run.encoding import encode as encode
    from dyntok.run.finalizing import finalize as finalize
    from dyntok.run.planning import estimate as estimate
    from dyntok.run.planning import freeze as freeze
    from dyntok.run.repairing import repair as repair
    from dyntok.run.tell.observer import RunObserver as RunObserver
    from dyntok.run.watch.logs import FailedVideo as FailedVideo
    from dyntok.run.watch.logs import failed_videos as failed_videos
    from dyntok.run.watch.logs import run_events as run_events
    from dyntok.run.watch.reports import EncodeReport as EncodeReport
    from dyntok.run.watch.reports import PlanReport as PlanReport
    from dyntok.run.watch.reports import StatusReport as StatusReport
    from dyntok.run.watch.status import StoreWatch as StoreWatch
    from dyntok.run.watch.status import status as status

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

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
