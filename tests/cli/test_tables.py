from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyntok_cli.tables import count, duration, pairs, printable, ratio, size, table


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in shown)
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["bikes.mp4", "Größe/日本語.mkv", "a b\u00e9"])
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_escapes_can_be_read() -> None:
    assert printable("a\x1b[31mb\nc\u202ed\udc80") == "a\\x1b[31mb\\nc\\u202ed\\udc80"
    assert printable("a\nb", keep="\n") == "a\nb"


def test_figures_are_aligned_right_and_words_left() -> None:
    assert table(("name", "tokens"), [("a", "1"), ("bcdef", "1,234")]) == (
        "name   tokens\n-----  ------\na           1\nbcdef   1,234"
    )


def test_wide_characters_do_not_shift_columns() -> None:
    lines = table(("video", "state"), [("日本", "done"), ("abcd", "done")]).splitlines()
    assert lines[2] == "日本   done"
    assert lines[3] == "abcd   done"


def test_a_line_break_in_a_cell_cannot_fake_a_row() -> None:
    assert len(table(("video",), [("a\nb",)]).splitlines()) == 3


def test_a_long_cell_keeps_its_ends() -> None:
    cell = table(("video",), [("start" + "x" * 500 + "end",)]).splitlines()[2]
    assert cell.startswith("start")
    assert cell.endswith("end")
    assert len(cell) < 100


def test_an_empty_table_has_its_headers() -> None:
    assert table(("a", "b"), []) == "a  b\n-  -"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1000), "1 kB"),
        (size(1_234_567), "1.23 MB"),
        (size(20_000_000_000), "20 GB"),
        (size(5e15), "5.0 PB"),
        (size(999_999), "1 MB"),
        (count(1234567), "1,234,567"),
        (ratio(444, 1000), "44.4 %"),
        (ratio(1, 0), "-"),
        (duration(0.421), "0.42 s"),
        (duration(12.34), "12.3 s"),
        (duration(59.99), "1 min 00 s"),
        (duration(245), "4 min 05 s"),
        (duration(12_000), "3 h 20 min"),
        (pairs([("a", "1"), ("long", "2")]), "a     1\nlong  2"),
    ],
)
def test_units(shown: str, expected: str) -> None:
    assert shown == expected
