"""Runs the whole path: prepares a store, encodes its shards, finishes it, and says how far it is.

Composes `corpus`, `video`, `vision`, `merging` and `store`, which know nothing of each other. Names are loaded when
they are asked for, so that `status` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyntok.run.encoding import encode
    from dyntok.run.forecast import estimate
    from dyntok.run.progress import RunObserver
    from dyntok.run.repair import repair
    from dyntok.run.reports import EncodeReport, PlanReport, StatusReport
    from dyntok.run.state import status

_WHERE = {
    "encode": "encoding",
    "estimate": "forecast",
    "repair": "repair",
    "status": "state",
    "RunObserver": "progress",
    "EncodeReport": "reports",
    "PlanReport": "reports",
    "StatusReport": "reports",
}

__all__ = [
    "EncodeReport",
    "PlanReport",
    "RunObserver",
    "StatusReport",
    "encode",
    "estimate",
    "repair",
    "status",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
