"""The group of all commands, of which only the one that is called is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from dyntok_cli.examples import epilog


class Group(TyperGroup):
    """Help and the completion of names go by what the commands are registered with: a name and one line."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's flags for completion are off where they are not given. To make sense of None, it imports pydantic."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """Import a command and what its flags need."""
    from dyntok_cli.options import Command

    function = getattr(import_module(f"dyntok_cli.commands.{name}"), name)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=Command, epilog=epilog(name))(function)
    return typer.main.get_command(app)
