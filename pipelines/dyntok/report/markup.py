"""HTML from values: text is escaped unless it was made here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_EMPTY = ("br", "img", "input", "meta")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | bool) -> Markup:
    """`<name attributes>children</name>`. Children that are no Markup are escaped; `class_` becomes `class`."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not False:
            parts.append(f'{key}="{escape(visible(value))}"')
    opening = f"<{' '.join(parts)}>"
    if name in _EMPTY:
        return Markup(opening)
    inside = "".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children if child)
    return Markup(f"{opening}{inside}</{name}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Pieces of HTML one after the other."""
    return Markup("".join(parts))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int | None = None) -> Markup:
    """A table that scrolls sideways on narrow screens. Columns from `numbers` on are aligned to the right.

    A cell that is a `td` already is taken as it is.
    """
    first = len(headers) if numbers is None else numbers

    def line(kind: str, row: Sequence[str]) -> Markup:
        cells = (
            cell
            if isinstance(cell, Markup) and cell.startswith("<td")
            else tag(kind, cell, class_="number" if i >= first else False)
            for i, cell in enumerate(row)
        )
        return tag("tr", *cells)

    head, body = tag("thead", line("th", headers)), tag("tbody", *(line("td", row) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll", tabindex="0")


def data_block(name: str, content: Any) -> Markup:
    """JSON in a page, as a script element that is not run. No character of it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def visible(text: str) -> str:
    """`text` with control characters and direction overrides as escapes, so that it shows what it is."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
