"""Dependencies point one way, between packages and between the rooms inside them; reading a store stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dyntok
import dyntok_cli

SHARED = {"boundaries", "durable", "errors", "plan_schema", "records", "urls", "version"}
STORE = SHARED | {"objects", "stats", "store"}
RUN = STORE | {"config", "corpus", "merging", "video", "vision", "run"}
# A room is a package or a part of one. It may import itself and what stands here; the innermost room counts, and
# `run` alone means the modules that lie directly in it.
MAY_IMPORT = {
    "objects": {"urls"},
    "merging": SHARED,
    "stats": {"boundaries"},
    "vision": SHARED,
    "video": SHARED | {"objects"},
    "corpus": SHARED | {"objects"},
    "store": STORE | {"store.tar", "store.zarr", "store.care"},
    "store.tar": STORE,
    "store.zarr": STORE,
    "store.care": STORE | {"store.tar", "store.zarr"},
    "load": SHARED | {"objects", "store", "merging"},
    "adapters": SHARED | {"load", "store", "merging", "vision"},
    "report": SHARED | {"advice", "config", "load", "pictures", "run.tell", "run.watch", "stats", "store", "video"},
    "pictures": SHARED | {"corpus", "load", "merging", "store", "video"},
    "advice": SHARED | {"load", "merging", "run", "store"},
    "run": RUN | {"run.tell", "run.watch", "run.shard", "run.executors", "run.executors.ray", "store.care"},
    "run.tell": STORE | {"run"},
    "run.watch": STORE | {"corpus", "run", "run.tell"},
    "run.shard": RUN | {"run.tell"},
    "run.executors": RUN | {"run.tell", "run.shard", "run.executors.deaths"},
    "run.executors.deaths": RUN | {"run.tell", "run.shard", "run.executors"},
    "run.executors.ray": RUN | {"run.tell", "run.shard", "run.executors", "run.executors.deaths"},
}
# Libraries that are slow to import, or that not everybody has, and the only rooms that may name them.
ONLY_IN = {
    "ray": {"run.executors.ray"},
    "zarr": {"store.zarr"},
    "decord": {"video", "cli"},
    "av": {"video", "pictures", "report", "cli"},
    "plotly": {"report"},
    "PIL": {"pictures"},
    "transformers": {"vision", "adapters", "testing"},
    "typer": {"cli"},
    "pydantic": {"config", "cli"},
}
MOST_FILES = 21


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its name, a package by the name of its folder."""
    found = {}
    for package in (dyntok, dyntok_cli):
        top = Path(package.__file__).parent
        for file in top.rglob("*.py"):
            parts = file.relative_to(top.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules that a module names in its imports, wherever they stand: also in functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports relatively"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in modules() else node.module for name in names}
    return frozenset(found)


def room_of(module: str) -> str:
    """The innermost room that a module lies in; a module at the top is a room of its own."""
    if module.split(".")[0] == "dyntok_cli":
        return "cli"
    inner = module.removeprefix("dyntok").removeprefix(".")
    rooms = [room for room in MAY_IMPORT if inner == room or inner.startswith(f"{room}.")]
    return max(rooms, key=len, default=inner.split(".")[0])


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may(room: str) -> None:
    members = [module for module in modules() if room_of(module) == room]
    assert members
    for module in members:
        own = {room_of(name) for name in imports_of(module) if name.split(".")[0] == "dyntok"}
        unexpected = own - MAY_IMPORT[room] - {room}
        assert not unexpected, f"{module} imports {sorted(unexpected)}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_are_imported_by_their_rooms_alone(library: str) -> None:
    users = {
        room_of(module) for module in modules() if any(name.split(".")[0] == library for name in imports_of(module))
    }
    assert users == ONLY_IN[library] & users
    assert users


def test_no_two_files_import_each_other() -> None:
    graph = {module: imports_of(module) & modules().keys() for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_rooms_are_small_and_say_what_lives_there() -> None:
    folders = {file.parent for file in modules().values()}
    for folder in folders:
        files = list(folder.glob("*.py"))
        assert len(files) <= MOST_FILES, f"{folder.name} has {len(files)} files"
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, f"{folder.name} does not say what lives there"


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_reading_a_store_loads_no_decoder_model_or_executor() -> None:
    loaded = modules_after("import dyntok; dyntok.open; dyntok.decode_sample; dyntok.merge; dyntok.TokenStream")
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
