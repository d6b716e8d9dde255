"""What may survive is named by lines of the code; a line that is no more would accept nothing, and nobody would see."""

from __future__ import annotations

import ast
import tomllib

from tests.mutants.parts import PACKAGE, PARTS, REPOSITORY

ENTRIES = tomllib.loads((REPOSITORY / "tests" / "mutants" / "accepted.toml").read_text())["accepted"]


def test_every_accepted_change_has_its_line_and_a_reason() -> None:
    sources = {file for part in PARTS.values() for file in part.sources()}
    stale = [
        f"{entry['file']}, {entry['function']}: {entry['line']}"
        for entry in ENTRIES
        if entry["file"] not in sources
        or entry["line"] not in body(entry["file"], entry["function"])
        or not (entry["reason"] and entry["becomes"])
    ]
    assert stale == []


def test_no_change_is_accepted_twice() -> None:
    changes = [(e["file"], e["function"], e["line"], becomes) for e in ENTRIES for becomes in e["becomes"]]
    assert len(set(changes)) == len(changes)


def body(file: str, qualified: str) -> str:
    """A function's lines, without their indentation, as `run.py` joins those that a mutant changes; empty if none."""
    text = (PACKAGE / file).read_text()
    node: ast.AST = ast.parse(text)
    for name in qualified.split("."):
        inside = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name]
        if not inside:
            return ""
        node = inside[0]
    return " ".join(line.strip() for line in (ast.get_source_segment(text, node) or "").splitlines())
