"""One module for each command. A command takes its arguments, calls the library once, and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyntok_cli.commands import (
    config,
    convert,
    demo,
    doctor,
    encode,
    inspect,
    logs,
    plan,
    stats,
    status,
    verify,
)

# In the order of `dyntok --help`.
COMMANDS: dict[str, Callable[..., Any]] = {
    "encode": encode.encode,
    "plan": plan.plan,
    "status": status.status,
    "logs": logs.logs,
    "verify": verify.verify,
    "stats": stats.stats,
    "inspect": inspect.inspect,
    "convert": convert.convert,
    "demo": demo.demo,
    "config": config.config,
    "doctor": doctor.doctor,
}
