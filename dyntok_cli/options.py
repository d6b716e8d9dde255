"""Arguments and flags that several commands share, and the flags of the settings of a run.

`SETTINGS` has one flag for every field of `EncodeConfig`, under the same name. It repeats their types because the
config module imports pydantic, which would make `--help` slow; a test holds the two against each other.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, cast

import typer
from typer.core import TyperCommand

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout in place of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
# Read by main.run, which has to know it even where parsing the other flags fails.
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Files, folders, globs, manifests (.jsonl, .csv, .parquet) or tars of videos.",
    ),
]
Store = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of a store.", show_default=False)]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE.yaml", help="YAML file of settings. Flags override it."),
]

SIZES = frozenset({"shard_size", "decode_memory", "input_cache"})

SETTINGS: dict[str, Any] = {
    "model": Annotated[
        str | None, typer.Option("--model", help="HF hub id, local checkpoint folder, or `demo`. Required.")
    ],
    "revision": Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")
    ],
    "space": Annotated[
        Literal["llm", "vision"] | None,
        typer.Option("--space", help="Store projected tokens (llm, default) or tower features (vision)."),
    ],
    "precision": Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        typer.Option("--precision", help="Arithmetic of the model; auto is float32 on CPUs, else bfloat16."),
    ],
    "compile": Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the model with torch.compile.")
    ],
    "frames": Annotated[
        int | None, typer.Option("--frames", help="Frames a video, spread uniformly. [default: 32]")
    ],
    "fps": Annotated[
        float | None, typer.Option("--fps", help="Frames a second of video, instead of --frames.")
    ],
    "max_frames": Annotated[
        int | None, typer.Option("--max-frames", help="With --fps: above it, this many uniformly.")
    ],
    "thresholds": Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            metavar="T,T,...",
            help="Similarity thresholds. The largest is stored, all others follow from it. "
            "[default: 0.4,0.45,0.5,0.55,0.6]",
        ),
    ],
    "format": Annotated[
        Literal["webdataset", "zarr"] | None,
        typer.Option("--format", help="Shards as tars (webdataset, default) or Zarr v3 groups."),
    ],
    "layout": Annotated[
        Literal["nested", "explicit"] | None,
        typer.Option(
            "--layout", help="Store the finest threshold (nested, default), or each one (explicit)."
        ),
    ],
    "dtype": Annotated[
        Literal["bfloat16", "float16", "float32", "int8"] | None,
        typer.Option("--dtype", help="Of stored tokens. [default: bfloat16]"),
    ],
    "shard_size": Annotated[
        str | None,
        typer.Option("--shard-size", metavar="SIZE", help="Aimed size of a shard. [default: 1GB]"),
    ],
    "batch_size": Annotated[
        int | None, typer.Option("--batch-size", help="Frames per forward pass. [default: 16]")
    ],
    "decoder": Annotated[
        Literal["auto", "decord", "pyav"] | None,
        typer.Option("--decoder", help="auto (default) takes one that is exact on the file."),
    ],
    "max_pixels": Annotated[
        int | None, typer.Option("--max-pixels", help="Largest width x height that is decoded.")
    ],
    "max_seconds": Annotated[
        float | None, typer.Option("--max-seconds", help="Longest video that is decoded.")
    ],
    "full_fingerprint": Annotated[
        bool | None,
        typer.Option(
            "--full-fingerprint/--no-full-fingerprint",
            help="Fingerprint inputs by their whole content, not by head and tail.",
        ),
    ],
    "executor": Annotated[
        Literal["auto", "local", "ray"] | None,
        typer.Option(
            "--executor",
            help="In this process (local), or by Ray actors (ray). auto (default) takes ray for more than one GPU "
            "or where an address is given.",
        ),
    ],
    "ray_address": Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="Ray cluster to join; without it, Ray starts here and ends with the run.",
        ),
    ],
    "actors": Annotated[
        int | None,
        typer.Option(
            "--actors", help="Ray actors; 0 (default) is one for each GPU, or for each machine without."
        ),
    ],
    "gpus_per_actor": Annotated[
        float | None,
        typer.Option("--gpus-per-actor", help="Share of a GPU that an actor takes; 0 makes CPU-only actors."),
    ],
    "cpus_per_actor": Annotated[
        float | None,
        typer.Option("--cpus-per-actor", help="CPUs that an actor takes; by default its decode processes."),
    ],
    "max_attempts": Annotated[
        int | None,
        typer.Option(
            "--max-attempts",
            help="Times that a video alone may kill its process before it is given up. [default: 3]",
        ),
    ],
    "grace_period_s": Annotated[
        float | None,
        typer.Option(
            "--grace-period",
            "--grace-period-s",
            metavar="SECONDS",
            help="After SIGTERM, time for the shards in work to be committed. [default: 20]",
        ),
    ],
    "device": Annotated[
        str | None,
        typer.Option("--device", help="auto, cpu, mps, cuda or cuda:N. [default: auto]"),
    ],
    "decode_workers": Annotated[
        int | None,
        typer.Option("--decode-workers", help="Decode processes; 0 (default) is one per core, at most 16."),
    ],
    "decode_timeout_s": Annotated[
        float | None,
        typer.Option(
            "--decode-timeout",
            "--decode-timeout-s",
            metavar="SECONDS",
            help="Longest decode of one video. [default: 300]",
        ),
    ],
    "decode_memory": Annotated[
        str | None,
        typer.Option("--decode-memory", metavar="SIZE", help="Memory of one decode process. [default: 4GiB]"),
    ],
    "input_cache": Annotated[
        str | None,
        typer.Option(
            "--input-cache",
            metavar="SIZE",
            help="Temporary disk space for remote videos until they are decoded. [default: 2GiB]",
        ),
    ],
    "fail_fast": Annotated[
        bool | None,
        typer.Option("--fail-fast/--no-fail-fast", help="Stop at the first failed video."),
    ],
}

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
    """A command whose help shows the flags of `SETTINGS` in the sections of `SECTIONS`, after its own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        of = {flag: section for section, flags in SECTIONS.items() for flag in flags}
        sections: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("Arguments", "Options", *SECTIONS)
        }
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
