"""Arguments and flags that several commands share, and the flags of the settings of a run.

`SETTINGS` has one flag for every field of `EncodeConfig`, under the same name. It repeats their types because the
config module imports pydantic, which would make `--help` slow; a test holds the two against each other.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, cast

from typer import Argument, Option
from typer.core import TyperCommand

from dyntok.meanings import MEANINGS

Json = Annotated[bool, Option("--json", help="Print one JSON document on stdout in place of text.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress and no notes on stderr.")]
# Read by main.run, which has to know it even where parsing the other flags fails.
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
Inputs = Annotated[
    list[str] | None,
    Argument(
        metavar="INPUT",
        show_default=False,
        help="Files, folders, globs, manifests (.jsonl, .csv, .parquet) or tars of videos.",
    ),
]
Store = Annotated[str, Argument(metavar="STORE", help="Folder or URL of a store.", show_default=False)]
ConfigFile = Annotated[
    str | None, Option("--config", metavar="FILE.yaml", help="YAML file of settings. Flags override it.")
]

SIZES = frozenset({"shard_size", "decode_memory", "input_cache"})
# What stands for a path in the help of a flag or an argument, perhaps with a suffix.
PATHS = frozenset({"INPUT", "STORE", "DIR", "TARGET", "FOLDER", "FILE", "PATH"})


def expanded(path: str) -> str:
    """A path with its `~` as a shell would have read it: in `--out=~/t`, quotes and YAML no shell does."""
    return os.path.expanduser(path)  # noqa: PTH111  (a URL is no Path)


def _flag(name: str, kind: Any, default: str = "", metavar: str | None = None) -> Any:
    """The flag of a setting. A switch can be turned off too, and a unit may be left out of the flag's name."""
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    if name.endswith("_s"):
        names.insert(0, flag.removesuffix("-s"))
    meaning = MEANINGS[name]
    text = f"{meaning[0].upper()}{meaning[1:]}." + (f" [default: {default}]" if default else "")
    return Annotated[kind | None, Option(*names, metavar=metavar, help=text)]


# Type, default where the help shows one, and what stands for the value.
_ROWS: dict[str, tuple[Any, ...]] = {
    "model": (str,),
    "revision": (str,),
    "space": (Literal["llm", "vision"], "llm"),
    "precision": (Literal["auto", "float32", "bfloat16", "float16"], "auto"),
    "compile": (bool,),
    "frames": (int, "32"),
    "fps": (float,),
    "max_frames": (int,),
    "thresholds": (str, "0.4,0.45,0.5,0.55,0.6", "T,T,..."),
    "format": (Literal["webdataset", "zarr"], "webdataset"),
    "layout": (Literal["nested", "explicit"], "nested"),
    "dtype": (Literal["bfloat16", "float16", "float32", "int8"], "bfloat16"),
    "shard_size": (str, "1GB", "SIZE"),
    "batch_size": (int, "16"),
    "decoder": (Literal["auto", "decord", "pyav"], "auto"),
    "max_pixels": (int,),
    "max_seconds": (float,),
    "full_fingerprint": (bool,),
    "executor": (Literal["auto", "local", "ray"], "auto"),
    "ray_address": (str, "", "HOST:PORT"),
    "actors": (int, "0"),
    "gpus_per_actor": (float,),
    "cpus_per_actor": (float,),
    "max_attempts": (int, "3"),
    "grace_period_s": (float, "20", "SECONDS"),
    "device": (str, "auto"),
    "decode_workers": (int, "0"),
    "decode_timeout_s": (float, "300", "SECONDS"),
    "decode_memory": (str, "4GiB", "SIZE"),
    "input_cache": (str, "2GiB", "SIZE"),
    "fail_fast": (bool,),
}
SETTINGS = {name: _flag(name, *row) for name, row in _ROWS.items()}

# The sections of the help that the flags of SETTINGS are shown in.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("model", "revision", "space", "precision", "compile", "batch_size", "device"),
    "Frames": ("frames", "fps", "max_frames", "decoder", "max_pixels", "max_seconds", "full_fingerprint"),
    "Tokens": ("thresholds", "layout", "dtype", "format", "shard_size"),
    "Machines": (
        "executor",
        "ray_address",
        "actors",
        "gpus_per_actor",
        "cpus_per_actor",
        "decode_workers",
        "decode_memory",
        "input_cache",
    ),
    "Failures": ("fail_fast", "max_attempts", "decode_timeout_s", "grace_period_s"),
}

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command whose paths may begin with `~`, and whose help shows the settings in `SECTIONS` after its own flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            value = ctx.params.get(parameter.name)
            if value and str(parameter.metavar).partition(".")[0] in PATHS:
                ctx.params[parameter.name] = (
                    expanded(value) if isinstance(value, str) else [expanded(path) for path in value]
                )
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        of = {flag: section for section, flags in SECTIONS.items() for flag in flags}
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", "Options", *SECTIONS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections[of.get(parameter.name or "", own)].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def with_settings(function: Function) -> Function:
    """Give a command the flags of `SETTINGS`; those that were given arrive as the dict `settings`."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in SETTINGS.items()
    ]

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        given = {name: value for name in SETTINGS if (value := values.pop(name)) is not None}
        return function(settings=given, **values)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = signature.replace(parameters=[*keyword_only, *flags])  # type: ignore[attr-defined]
    return cast(Function, command)
