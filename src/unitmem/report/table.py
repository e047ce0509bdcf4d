"""Tables that fit the terminal: numbers are never cut, less important columns are left out, one text column is cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from unitmem.report.styled import ELLIPSIS, Text, cell_len, take
from unitmem.report.terminal import Console
from unitmem.text import printable

GAP = 2


class Cut(Enum):
    """Where a text that is too long is cut."""

    MIDDLE = "middle"
    """For names, whose beginning and kind are the most important."""
    END = "end"
    """For sentences and command lines."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; numbers are aligned right, text left."""

    header: str
    is_number: bool = True
    cut: Cut | None = None
    """Where its texts are cut if the table is too wide; for one column of a table."""
    least: int = 12
    """The least width to which it is cut before other columns are left out."""
    rank: int = 0
    """0 is never left out; of the others, the highest rank is left out first."""
    steady: int = 0
    """The least width whatever its content, so that a table that is redrawn doesn't move."""


def print_table(
    console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Text]], indent: int = 0
) -> None:
    """Print `rows`, a text for each of `columns`, under a header, fitted to the width of `console` if possible."""
    for line in table_lines(columns, rows, console.width, indent):
        console.print(line)


def table_lines(
    columns: Sequence[Column], rows: Iterable[Sequence[Text]], available: int, indent: int = 0
) -> list[Text]:
    """Return the lines of a table, the header first, for a terminal of `available` columns."""
    cells = [[Text(column.header, "bold") for column in columns], *(list(map(_safe, row)) for row in rows)]
    plain = [[cell.plain for cell in row] for row in cells]
    widths = [
        max(column.steady, *map(cell_len, texts))
        for column, texts in zip(columns, zip(*plain, strict=True), strict=True)
    ]
    shown = fit(columns, widths, available - indent)
    lines = []
    for row, texts in zip(cells, plain, strict=True):
        line = Text(" " * indent)
        for index, width in shown.items():
            _append_padded(line, texts[index], row[index].style, columns[index], width)
            line.append(" " * GAP)
        line.rstrip()
        lines.append(line)
    return lines


def print_line(console: Console, line: Text | str = "") -> None:
    """Print `line` as it is: neither wrapped nor cropped."""
    console.print(_safe(Text(line) if isinstance(line, str) else line))


def _safe(line: Text) -> Text:
    """Return `line` with unprintable characters escaped: names that others gave may turn a line around, or hide it."""
    return line if line.plain.isprintable() else Text(printable(line.plain), line.style)


def fit(columns: Sequence[Column], widths: Sequence[int], available: int) -> dict[int, int]:
    """Return the width of each column to show, by its index in `columns`.

    Args:
        columns: all columns.
        widths: the width that each one needs.
        available: the width of the terminal.
    """
    shown = dict(enumerate(widths))
    flexible = next((index for index, column in enumerate(columns) if column.cut), None)
    floor = {index: min(width, columns[index].least) for index, width in shown.items() if index == flexible}
    by_rank = sorted((index for index in shown if columns[index].rank), key=lambda index: columns[index].rank)
    while by_rank and _total(shown | floor) > available:
        del shown[by_rank.pop()]
    if flexible is not None and (excess := _total(shown) - available) > 0:
        # narrower than its floor, but never so narrow that it says nothing
        shown[flexible] = max(
            min(shown[flexible], cell_len(columns[flexible].header), 8), shown[flexible] - excess
        )
    return shown


def shorten(text: str, width: int, cut: Cut) -> str:
    """Return `text` cut to `width` cells at most, with an ellipsis in place of what is missing."""
    if cell_len(text) <= width:
        return text
    room = width - cell_len(ELLIPSIS)
    if cut is Cut.END:
        return take(text, room) + ELLIPSIS
    tail = take(text[::-1], room // 2)[::-1]
    return take(text, room - cell_len(tail)) + ELLIPSIS + tail


def _append_padded(line: Text, plain: str, style: str, column: Column, width: int) -> None:
    if column.cut:
        plain = shorten(plain, width, column.cut)
    padding = " " * (width - cell_len(plain))
    if column.is_number:
        line.append(padding)
    line.append(plain, style)
    if not column.is_number:
        line.append(padding)


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
