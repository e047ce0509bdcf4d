"""Tables of figures, and the targets that some figures have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Figures of one run side by side; the first column is their name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def column(self, name: str) -> list[Cell]:
        return [row[self.columns.index(name)] for row in self.rows]


@dataclass(frozen=True)
class Target:
    """A figure with what it should reach: at most `limit`, or at least."""

    figure: str
    value: float | None
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def is_reached(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Answer:
    """What a question gives."""

    tables: Sequence[Table]
    targets: Sequence[Target] = field(default=())

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Answer:
        return cls(
            [Table(**table) for table in document["tables"]],
            [Target(**target) for target in document["targets"]],
        )


def targets_table(targets: Sequence[Target]) -> Table:
    rows: list[list[Cell]] = [
        [
            target.figure,
            None if target.value is None else f"{text(target.value)}{target.unit}",
            f"{'≥' if target.at_least else '≤'} {text(target.limit)}{target.unit}",
            "reached" if target.is_reached else "missed" if target.value is not None else "not measured",
        ]
        for target in targets
    ]
    return Table("Targets", ("figure", "measured", "target", ""), rows)


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def text(cell: Cell) -> str:
    """A cell as it is printed: three digits that count, and `-` for what is unknown."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if abs(cell) >= 100 or cell == int(cell) else f"{cell:.3g}"


def render(table: Table) -> str:
    """The table for a terminal, numbers to the right."""
    rows = [list(table.columns), *([text(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = [any(not isinstance(row[at], str) for row in table.rows) for at in range(len(table.columns))]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(
        [table.title, *(f"  {line}" for line in lines), *([f"  {table.note}"] if table.note else [])]
    )


def markdown(table: Table) -> str:
    rule = [
        "---:" if any(not isinstance(row[at], str) for row in table.rows) else "---"
        for at in range(len(table.columns))
    ]
    rows = [table.columns, rule, *([text(cell) for cell in row] for row in table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"**{table.title}**", "", *lines, *(["", table.note] if table.note else [])])
