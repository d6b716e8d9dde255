"""Plain aligned text: tables, sizes, counts, durations. Pure functions, no colour."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MOST_CELL = 96


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters, direction overrides and lone surrogates as escapes, except those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c)[0] != "C" else _escape(c) for c in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headers, two blanks between columns. A column of figures is aligned to the right."""
    cells = [[_shortened(printable(cell)) for cell in row] for row in [headers, *rows]]
    columns = range(len(headers))
    widths = [max(_width(row[i]) for row in cells) for i in columns]
    right = [bool(rows) and all(_is_figure(row[i]) for row in cells[1:]) for i in columns]
    lines = ["  ".join(_pad(row[i], widths[i], right[i]) for i in columns).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """`name  value` lines, values aligned."""
    width = max(len(name) for name, _ in items)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in items)


def count(number: int) -> str:
    """`1,234,567`."""
    return f"{number:,}"


def several(number: int, name: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def size(number: float) -> str:
    """Bytes in decimal units: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} PB"


def ratio(part: float, whole: float) -> str:
    """`44.4 %`, or `-` of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 05 s`, `3 h 20 min`."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _is_figure(cell: str) -> bool:
    return cell in ("", "-") or cell[:1].isdigit() or (cell[:1] == "-" and cell[1:2].isdigit())


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _shortened(cell: str) -> str:
    """A very long id or message keeps its two ends."""
    if len(cell) <= _MOST_CELL:
        return cell
    half = (_MOST_CELL - 3) // 2
    return f"{cell[:half]}...{cell[-half:]}"


def _width(text: str) -> int:
    """Columns that a terminal needs: wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
