"""`dyntok config`: every setting of a run, as a YAML template, as a JSON schema, or as it would be used."""

from __future__ import annotations

import json as jsonlib
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from typer import Argument, Option

from dyntok.meanings import MEANINGS
from dyntok_cli.configuring import EXAMPLE_MODEL, sourced_settings
from dyntok_cli.options import SIZES, Debug, with_settings
from dyntok_cli.output import Output
from dyntok_cli.tables import table

DEFAULT_FILE = "dyntok.yaml"
_HEADER = """\
# Settings of `dyntok encode` and `dyntok plan`: use them with --config FILE.yaml.
# Flags of the same names override what stands here. All but `model` have the value shown by default."""


@with_settings
def config(
    *,
    action: Annotated[
        Literal["init", "show"] | None,
        Argument(
            metavar="[init|show]",
            help="init: write the template to FILE. show: print what `encode` would use, and where each value is from.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        Argument(
            metavar="FILE.yaml",
            help=f"The file to write ({DEFAULT_FILE}), or to read. `encode` takes it with --config.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        Option("--out", "-o", metavar="DIR", help="With show: begin with the settings of this store."),
    ] = None,
    json: Annotated[
        bool, Option("--json", help="Print the JSON schema in place of the template; or the result as JSON.")
    ] = False,
    debug: Debug = False,
    settings: dict[str, Any],
) -> None:
    """Print every setting as a YAML template.

    Each has its default and its meaning; `encode --config FILE.yaml` reads it back. `config init` writes it to a file.
    `config show` takes the flags of `encode` and prints the settings that a run with them would use.
    """
    from dyntok.config import EncodeConfig
    from dyntok.errors import UsageError

    output = Output(json=json)
    if action != "show" and (settings or out is not None):
        raise UsageError("flags of settings go with `show`", hint="dyntok config show [FILE.yaml] [FLAGS]")
    if action is None:
        output.report(EncodeConfig.model_json_schema(), template())
    elif action == "init":
        path = write_template(Path(file or DEFAULT_FILE))
        output.report({"file": str(path)}, f"wrote {path}")
        output.hint(f"set `model` in it, then `dyntok encode INPUT... --out DIR --config {path}`")
    else:
        found = sourced_settings(settings, file, out)
        document = {name: {"value": value, "source": source} for name, (value, source) in found.items()}
        rows = [(name, _yaml(name, value), source) for name, (value, source) in found.items()]
        output.report({"settings": document}, table(("setting", "value", "from"), rows))


def write_template(path: Path) -> Path:
    """Write the template to a new file. Raises ConfigError if there is one, or it cannot be written."""
    from dyntok.errors import ConfigError

    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(template() + "\n")
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already", hint="remove it, or give another name: dyntok config init FILE.yaml"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}",
            hint="give a file in a folder that you may write to",
        ) from error
    return path


def template() -> str:
    """YAML that loads back into the default settings, with the example model."""
    from dyntok.config import EncodeConfig

    blocks = [_HEADER]
    for name, field in EncodeConfig.model_fields.items():
        value = EXAMPLE_MODEL if field.is_required() else field.get_default()
        choices = _choices(field.annotation)
        comment = f"{MEANINGS[name]} ({' | '.join(choices)})" if choices else MEANINGS[name]
        blocks.append(f"{textwrap.indent(textwrap.fill(comment, 108), '# ')}\n{name}: {_yaml(name, value)}")
    return "\n\n".join(blocks)


def _choices(annotation: Any) -> list[str]:
    values = get_args(annotation) if get_origin(annotation) is not tuple else ()
    return [value for value in values if isinstance(value, str)]


def _yaml(name: str, value: Any) -> str:
    """JSON is YAML; words need no quotes."""
    if name in SIZES and isinstance(value, int):
        return _size(value)
    return value if isinstance(value, str) else jsonlib.dumps(value)


def _size(size_bytes: int) -> str:
    """The shortest text that `--shard-size` reads back exactly."""
    for factor, unit in ((2**30, "GiB"), (10**9, "GB"), (2**20, "MiB"), (10**6, "MB")):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)
