"""`dyntok config`: every setting of a run, as a YAML template or a JSON schema."""

from __future__ import annotations

import json as jsonlib
import textwrap
from typing import Annotated, Any, get_args, get_origin

import typer

from dyntok_cli.configuring import EXAMPLE_MODEL
from dyntok_cli.options import SETTINGS, SIZES, Debug
from dyntok_cli.output import Output

_HEADER = """\
# Settings of `dyntok encode` and `dyntok plan`: use them with --config FILE.yaml.
# Flags of the same names override what stands here. All but `model` have the value shown by default."""


def config(
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print the JSON schema in place of the template.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print every setting as a YAML template.

    Each has its default and its meaning; `encode --config FILE.yaml` reads it back.
    """
    from dyntok.config import EncodeConfig

    Output(json=json).report(EncodeConfig.model_json_schema(), template())


def template() -> str:
    """YAML that loads back into the default settings, with the example model."""
    from dyntok.config import EncodeConfig

    blocks = [_HEADER]
    for name, field in EncodeConfig.model_fields.items():
        value = EXAMPLE_MODEL if field.is_required() else field.get_default()
        meaning = field.description or _flag_help(name)
        choices = _choices(field.annotation)
        comment = f"{meaning} ({' | '.join(choices)})" if choices else meaning
        blocks.append(f"{textwrap.indent(textwrap.fill(comment, 108), '# ')}\n{name}: {_yaml(name, value)}")
    return "\n\n".join(blocks)


def _flag_help(name: str) -> str:
    option = SETTINGS[name].__metadata__[0]
    return str(option.help).split(" [default:")[0]


def _choices(annotation: Any) -> list[str]:
    values = get_args(annotation) if get_origin(annotation) is not tuple else ()
    return [value for value in values if isinstance(value, str)]


def _yaml(name: str, value: Any) -> str:
    """JSON is YAML; words need no quotes."""
    if name in SIZES:
        return _size(value)
    return value if isinstance(value, str) else jsonlib.dumps(value)


def _size(size_bytes: int) -> str:
    """The shortest text that `--shard-size` reads back exactly."""
    for factor, unit in ((2**30, "GiB"), (10**9, "GB"), (2**20, "MiB"), (10**6, "MB")):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)
