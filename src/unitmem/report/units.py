"""The table of `unitmem list`: a line for each unit, with the most important measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.report.styled import Text
from unitmem.report.table import Column, Cut, print_line, print_table, shorten
from unitmem.report.terminal import Console
from unitmem.text import format_percent, format_size, plural

NEAR, VERY_NEAR = 75.0, 90.0  # percent of the limit
_CONTENT = 40
"""The most columns for what runs in a unit."""
PRESSED, VERY_PRESSED = 10.0, 40.0  # percent of time that tasks waited for memory


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a unit: a column of the table, and a field to sort by."""

    header: str
    value: Callable[[UnitSample], float | None]
    format: Callable[[float | None], str]
    rank: int = 0
    """The rank of its column; see `Column.rank`."""
    least_first: bool = False
    """Whether the smallest value is the most urgent, and sorted first."""


def used(sample: UnitSample) -> float | None:
    """Return the working set of the unit as a percentage of its effective limit; None where one is unknown."""
    workingset, limit = sample.values.get("workingset"), sample.values.get("limit")
    return None if workingset is None or not limit else 100 * workingset / limit


def _measure(name: str) -> Callable[[UnitSample], float | None]:
    return lambda sample: sample.values.get(name)


def _size(value: float | None) -> str:
    return format_size(None if value is None else int(value))


FIELDS = {
    "pss": Field("PSS", _measure("pss"), _size),
    "current": Field("CURRENT", _measure("current"), _size, rank=3),
    "workingset": Field("WORKINGSET", _measure("workingset"), _size),
    "anon": Field("ANON", _measure("anon"), _size, rank=2),
    "swap": Field("SWAP", _measure("swap"), _size, rank=1),
    "limit": Field("LIMIT", _measure("limit"), _size),
    "used": Field("USED%", used, format_percent),
    "headroom": Field("HEADROOM", _measure("headroom"), _size, rank=4, least_first=True),
    "pressure": Field("PRESSURE", _measure("pressure.some.avg10"), format_percent),
}
SORT_FIELDS = ("unit", *FIELDS)
MEASURES_SHOWN = frozenset(
    {"current", "workingset", "anon", "swap", "limit", "headroom", "pressure.some.avg10"}
)
"""The measures that the table needs, without PSS."""
DEFAULT_SORT = "workingset"


def sort_units(
    units: Iterable[UnitSample], field: str, fields: Mapping[str, Field] = FIELDS
) -> list[UnitSample]:
    """Return `units` sorted by `unit` or one of `fields`: largest first, except names and headroom; unknown last."""
    by_name = sorted(units, key=lambda sample: sample.unit.name)
    if field == "unit":
        return by_name
    value, sign = fields[field].value, 1 if fields[field].least_first else -1

    def urgency(sample: UnitSample) -> tuple[bool, float]:
        number = value(sample)
        return number is None, 0 if number is None else sign * number

    return sorted(by_name, key=urgency)


def print_units(
    machine: Sample, units: Sequence[UnitSample], console: Console, *, with_pss: bool = False
) -> None:
    """Print `units` of `machine` in their order; on a terminal a legend follows.

    What runs in a unit is shown where its name doesn't say it, and where there is room.
    """
    fields = {name: field for name, field in FIELDS.items() if with_pss or name != "pss"}
    columns = [
        Column("UNIT", is_number=False, cut=Cut.MIDDLE, least=30),
        *(Column(field.header, rank=field.rank) for field in fields.values()),
    ]
    rows = [
        [Text(sample.unit.name), *(_cell(name, field, machine, sample) for name, field in fields.items())]
        for sample in units
    ]
    contents = [shorten(sample.unit.content, _CONTENT, Cut.END) for sample in units]
    if any(contents):
        columns.append(Column("DESCRIPTION", is_number=False, rank=5))
        for row, content in zip(rows, contents, strict=True):
            row.append(Text(content))
    print_table(console, columns, rows)
    if console.is_terminal:
        print_line(console)
        print_line(console, _legend(machine, units))


def _cell(name: str, field: Field, machine: Sample, sample: UnitSample) -> Text:
    value = field.value(sample)
    return Text(field.format(value), style(name, value, machine, sample))


def style(name: str, value: float | None, machine: Sample, sample: UnitSample) -> str:
    """Return the style of the field `name` of `sample`: dim if unknown, highlighted if urgent."""
    if value is None:
        return "dim"
    match name:
        case "used":
            return _alarm(value, NEAR, VERY_NEAR)
        case "pressure":
            return _alarm(value, PRESSED, VERY_PRESSED)
        case "limit" if machine.limit_set_by(sample) == HOST_LEVEL:
            return "dim"  # nothing but the machine's size
        case _:
            return ""


def _alarm(value: float, high: float, very_high: float) -> str:
    return "bold red" if value >= very_high else "yellow" if value >= high else ""


def _legend(machine: Sample, units: Sequence[UnitSample]) -> Text:
    count = plural(len(units), "unit")
    return Text(f"{count}; this machine: {format_host(machine.host)}.", "dim")


def format_host(host: HostSample) -> str:
    """Return a clause on the machine's available memory, and on used swap if it has any."""
    line = f"{format_size(host.available)} of {format_size(host.total)} available"
    if host.swap_total and host.swap_free is not None:
        line += (
            f", {format_size(host.swap_total - host.swap_free)} of {format_size(host.swap_total)} swap used"
        )
    return line
