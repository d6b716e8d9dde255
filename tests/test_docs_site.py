"""The documentation as a site: every page is in it, and it builds without a warning and without the network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import dyntok
from dyntok_cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "_site" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generated: ModuleType) -> dict[str, str]:
    found: dict[str, str] = generated.pages(ROOT)
    return found


def nav_files(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [file for part in (nav.values() if isinstance(nav, dict) else nav) for file in nav_files(part)]


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    listed = nav_files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted([*pages, *(page.name for page in DOCS.glob("*.md"))])


def test_every_command_and_its_flags_are_generated(pages: dict[str, str]) -> None:
    text = pages["reference/help.md"]
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(COMMANDS)
    for word in ("--thresholds", "--job-index", "--finalize", "Examples:"):
        assert word in text


def test_every_public_name_is_generated_with_its_signature(pages: dict[str, str], generated: ModuleType) -> None:
    text = pages["reference/python.md"]
    for name in dyntok.__all__:
        assert f"\n### dyntok.{name}\n" in text
    assert "def open" not in text
    assert "open(url: str | os.PathLike[str]) -> Store" in text
    assert " object at 0x" not in text, "an address would change with every build"
    assert generated.pages(ROOT)["reference/python.md"] == text


def test_docstring_sections_become_lists(generated: ModuleType) -> None:
    doc = (
        "One.\n\nTree::\n\n    a\n      b\n\n"
        "Raises:\n    StoreError: no store,\n        or none here.\n    OSError: else."
    )
    assert generated.markdown_of(doc) == (
        "One.\n\nTree:\n\n```text\n\n    a\n      b\n\n```\n\n**Raises**\n\n"
        "- `StoreError`: no store,\n    or none here.\n- `OSError`: else.\n"
    )


class Requests(HTMLParser):
    """What a browser would fetch for a page, without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        wanted = values.get("href") if tag == "link" else values.get("src") if tag != "a" else None
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        if wanted:
            self.urls.append(wanted)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="pip install 'dyntok[docs]'")
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) > len(list(DOCS.glob("*.md")))
    for page in built:
        parser = Requests()
        text = page.read_text()
        parser.feed(text)
        assert not [url for url in parser.urls if "//" in url], page.name
        assert not re.search(r"^\s*[-|] ", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL), re.MULTILINE), (
            f"{page.name}: a list or a table was not understood"
        )
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text())
