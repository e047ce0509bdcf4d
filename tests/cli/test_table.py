"""Tables at every width: numbers stay whole, the flexible column gives way, and lines fit where they can."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.report.styled import Text, cell_len
from unitmem.report.table import Column, Cut, print_table, shorten
from unitmem.report.terminal import Console

COLUMNS = (
    Column("NAME", is_number=False, cut=Cut.MIDDLE, least=20),
    Column("ALWAYS"),
    Column("SECOND", rank=2),
    Column("FIRST", rank=1),
)


def table(width: int, *rows: tuple[str, ...]) -> list[str]:
    file = io.StringIO()
    print_table(Console(file=file, width=width), COLUMNS, [[Text(cell) for cell in row] for row in rows])
    return file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (44, ["NAME                   ALWAYS  SECOND  FIRST", "a-rather-long.service    1.0M    2.0M   3.0M"]),
        (43, ["NAME                  ALWAYS  SECOND  FIRST", "a-rather-l…g.service    1.0M    2.0M   3.0M"]),
        (42, ["NAME                   ALWAYS  FIRST", "a-rather-long.service    1.0M   3.0M"]),
        (34, ["NAME                   ALWAYS", "a-rather-long.service    1.0M"]),
        (24, ["NAME              ALWAYS", "a-rather…service    1.0M"]),
        (5, ["NAME  ALWAYS", "a-…e    1.0M"]),
    ],
)  # fmt: skip
def test_columns_give_way_in_order(width, lines):
    assert table(width, ("a-rather-long.service", "1.0M", "2.0M", "3.0M")) == lines


@given(
    st.integers(1, 200),
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=90),
            *[st.integers(0, 1 << 70).map(str)] * 3,
        ),
        max_size=5,
    ),
)
def test_numbers_are_never_cut(width, rows):
    """At any width and with any name, each number that is shown is whole, and ends where its header ends."""
    header, *lines = table(width, *rows)
    shown = [name for name in ("ALWAYS", "SECOND", "FIRST") if name in header]
    assert shown[0] == "ALWAYS"
    for row, line in zip(rows, lines, strict=True):
        expected = [row[[column.header for column in COLUMNS].index(name)] for name in shown]
        assert line.split()[-len(shown) :] == expected
        assert cell_len(line) == cell_len(header)


@given(st.text(st.characters(exclude_categories=["C", "M"])), st.integers(1, 60), st.sampled_from(Cut))
def test_shortened_text_fits(text, width, cut):
    short = shorten(text, width, cut)
    assert cell_len(short) <= width
    assert short == text or "…" in short


@pytest.mark.parametrize(
    ("text", "width", "cut", "short"),
    [
        ("web.service", 11, Cut.MIDDLE, "web.service"),
        ("web@instance.service", 15, Cut.MIDDLE, "web@ins…service"),
        ("/usr/bin/web --serve", 10, Cut.END, "/usr/bin/…"),
        ("鯖鯖鯖鯖", 6, Cut.END, "鯖鯖…"),
        ("鯖鯖鯖鯖", 7, Cut.MIDDLE, "鯖鯖…鯖"),
        ("abc", 1, Cut.MIDDLE, "…"),
    ],
)
def test_shorten(text, width, cut, short):
    assert shorten(text, width, cut) == short
