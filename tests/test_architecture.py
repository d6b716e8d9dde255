"""Dependencies point one way; reading a store stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dyntok

SOURCE = Path(dyntok.__file__).parent
SHARED = {"boundaries", "durable", "errors", "records", "urls", "version"}
MAY_IMPORT = {
    "objects": {"urls"},
    "merging": SHARED,
    "stats": {"boundaries"},
    "vision": SHARED,
    "video": SHARED | {"objects"},
    "corpus": SHARED | {"objects"},
    "store": SHARED | {"objects", "stats"},
    "load": SHARED | {"objects", "store", "merging"},
    "adapters": SHARED | {"load", "store", "merging", "vision"},
    "report": SHARED | {"advice", "config", "load", "pictures", "run", "stats", "store", "video"},
    "pictures": SHARED | {"corpus", "load", "merging", "store", "video"},
    "advice": SHARED | {"load", "merging", "run", "store"},
    "run": SHARED | {"objects", "config", "merging", "vision", "video", "corpus", "store"},
}
PACKAGES = sorted(p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists() and p.name in MAY_IMPORT)


def imports_of(file: Path) -> set[str]:
    """Parts of dyntok that a file imports, as the name after `dyntok.`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "dyntok":
                names = [f"dyntok.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("dyntok.")}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    for file in (SOURCE / package).rglob("*.py"):
        unexpected = imports_of(file) - allowed
        assert not unexpected, f"{file.name} imports {sorted(unexpected)}"


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_reading_a_store_loads_no_decoder_model_or_executor() -> None:
    loaded = modules_after(
        "import dyntok; dyntok.open; dyntok.decode_sample; dyntok.merge; dyntok.TokenStream"
    )
    assert "torch" in loaded
    assert not loaded & {"av", "decord", "transformers", "ray", "pydantic", "dyntok.video", "dyntok.run"}


def test_status_needs_no_torch() -> None:
    loaded = modules_after("from dyntok.run import status; from dyntok.store import verify, convert")
    assert not loaded & {"torch", "transformers", "av", "decord"}


def test_statistics_need_no_torch_and_no_decoder() -> None:
    loaded = modules_after("import dyntok.stats, dyntok.report, dyntok.report.page")
    assert not loaded & {"torch", "transformers", "av", "decord", "zarr", "ray", "plotly", "dyntok.video"}


def test_the_package_itself_is_almost_free() -> None:
    loaded = modules_after("import dyntok")
    assert not loaded & {"torch", "numpy", "pyarrow", "pydantic"}


def test_every_exported_name_exists() -> None:
    for name in dyntok.__all__:
        assert getattr(dyntok, name) is not None
    with pytest.raises(AttributeError):
        dyntok.nothing  # noqa: B018
