"""One module for each command. A command takes its arguments, calls the library once, and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyntok_cli.commands.config import config
from dyntok_cli.commands.convert import convert
from dyntok_cli.commands.demo import demo
from dyntok_cli.commands.doctor import doctor
from dyntok_cli.commands.encode import encode
from dyntok_cli.commands.inspect import inspect
from dyntok_cli.commands.plan import plan
from dyntok_cli.commands.stats import stats
from dyntok_cli.commands.status import status
from dyntok_cli.commands.verify import verify

# In the order of `dyntok --help`.
COMMANDS: dict[str, Callable[..., Any]] = {
    "encode": encode,
    "plan": plan,
    "status": status,
    "verify": verify,
    "stats": stats,
    "inspect": inspect,
    "convert": convert,
    "demo": demo,
    "config": config,
    "doctor": doctor,
}
