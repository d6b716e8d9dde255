"""What mkdocs calls while it builds: adds the generated pages, and mends what GitHub and mkdocs read differently."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generated import pages  # noqa: E402 - beside this file, which is in no package

_CODE = re.compile(r"`[^`\n]*`")


def on_files(files: Files, config: Any) -> Files:
    """The pages that are made from the code."""
    for path, text in pages(HERE.parents[1]).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """In tables GitHub wants `a\\|b` for a bar in code; mkdocs shows the backslash."""
    lines = markdown.split("\n")
    return "\n".join(_bars(line) if line.startswith("|") else line for line in lines)


def _bars(row: str) -> str:
    return _CODE.sub(lambda code: code[0].replace("\\|", "|"), row)
