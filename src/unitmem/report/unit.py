"""The pages of `unitmem show`: a unit's identity, measures, limits up to the machine's, and processes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from unitmem.kernel.files import CGROUP_ROOT
from unitmem.kernel.limits import HOST_LEVEL, Level
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import MEASURES, Dimension, Measure, Scope, Trait
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.condition import format_level, format_value
from unitmem.report.styled import Text, cell_len
from unitmem.report.table import GAP, Column, Cut, print_line, print_table
from unitmem.report.terminal import Console
from unitmem.text import format_size, printable
from unitmem.unit import Unit

INDENT = 2
_NAME_WIDTH = max(len(name) for name, measure in MEASURES.items() if measure.scope is not Scope.HOST)
_VALUE_WIDTH = len("1023.9M")
_LEAST_NOTE = 36
_LEVELS_NOTE = (
    "MAX is memory.max of each cgroup, HIGH its memory.high, CURRENT its memory.current, WORKINGSET CURRENT − "
    "inactive_file of its memory.stat, and HEADROOM MAX − WORKINGSET. Of this machine, MAX is MemTotal of /proc/meminfo "
    "(where it is the limit, without huge pages that no cgroup is charged for), HEADROOM MemAvailable, and the others MemTotal − MemAvailable."
)


def print_unit(machine: Sample, sample: UnitSample, console: Console) -> None:
    """Print all of `sample`; reasons for unknown measures are listed together, after the measures."""
    _print_identity(sample, console)
    if sample.invocation is None:
        return
    for title, measures in _sections(sample):
        _print_title(title, console)
        _print_grid([(name, _value(sample.values.get(name), name)) for name in measures], console)
    _print_unknown(sample, console)
    _print_levels(machine, sample, console)
    _print_processes(sample.processes, console)


def print_sources(machine: Sample, sample: UnitSample, console: Console, cgroups: Path = CGROUP_ROOT) -> None:
    """Print what `print_unit` does, with the source and formula of each measure, or why it is unknown."""
    _print_identity(sample, console)
    path = sample.unit.control_group
    if sample.invocation is None or path is None:
        return
    print_line(console)
    print_line(console, Text(f"memory.* are files in {cgroups / path.lstrip('/')}", "dim"))
    width = max(map(len, MEASURES))
    indent = INDENT + width + GAP + _VALUE_WIDTH + GAP
    note = partial(textwrap.wrap, width=max(_LEAST_NOTE, console.width - indent))
    set_by = _set_by(machine, sample)
    for title, measures in _sections(sample, machine.host):
        _print_title(title, console)
        for name in measures:
            measure = MEASURES[name]
            whose = f"; here that of {set_by[name]}" if name in set_by else ""
            first, *more = note(f"{measure.source}: {measure.formula}{whose}")
            value = _pad_left(_value(machine.value(sample, name), name), _VALUE_WIDTH)
            print_line(console, Text.assemble(" " * INDENT, name.ljust(width + GAP), value, " " * GAP, first))
            reason = machine.why_unknown(sample, name)
            more += [] if reason is None else note(f"unknown: {reason}")
            for line in more:
                print_line(console, " " * indent + line)
    _print_levels(machine, sample, console)
    for line in textwrap.wrap(_LEVELS_NOTE, max(_LEAST_NOTE, console.width)):
        print_line(console, Text(line, "dim"))
    _print_processes(sample.processes, console)


# --- who it is -----------------------------------------------------------------------------------


def _print_identity(sample: UnitSample, console: Console) -> None:
    unit = sample.unit
    title = Text(unit.name, "bold")
    if unit.description and unit.description != unit.name:
        title.append(f" - {printable(unit.description)}")
    print_line(console, title)
    facts = dict(_facts(unit, sample.protected, has_cgroup=sample.invocation is not None))
    width = max(map(len, facts))
    for name, fact in facts.items():
        print_line(console, Text.assemble(" " * INDENT, (name.rjust(width), "dim"), ": ", fact))


def _facts(unit: Unit, protected: str | None, *, has_cgroup: bool) -> Iterator[tuple[str, str]]:
    yield "State", unit.state
    if unit.invocation_id is not None:
        yield "Invocation", unit.invocation_id
    if unit.control_group is not None:
        yield "Cgroup", unit.control_group if has_cgroup else f"{unit.control_group}, which is not there now"
    else:
        yield "Cgroup", "none, so there is no memory to measure"
    if unit.main_pid is not None:
        yield "Main PID", str(unit.main_pid)
    if unit.control_pid is not None:
        yield "Control PID", str(unit.control_pid)
    if protected is not None:
        yield "Protected", protected


# --- measures ------------------------------------------------------------------------------------


def _sections(*samples: UnitSample | HostSample) -> list[tuple[str, list[str]]]:
    """Return (title, names of measures) of each section."""
    sections: dict[str, list[str]] = {}
    for name, measure in MEASURES.items():
        if any(name in sample.values or name in sample.unknown for sample in samples):
            sections.setdefault(_section(measure), []).append(name)
    return list(sections.items())


def _section(measure: Measure) -> str:
    match measure.scope:
        case Scope.HOST:
            return "This machine"
        case Scope.PROCESSES:
            return "All its processes"
        case Scope.LARGEST:
            return "Its largest process"
        case Scope.UNIT if Trait.LIMIT in measure.traits:
            return "Limits"
        case Scope.UNIT if measure.name.startswith("pressure."):
            return "Pressure"
        case Scope.UNIT if measure.name.startswith("events."):
            return "Events since its start"
        case Scope.UNIT if measure.dimension is Dimension.SPAN:
            return "This run"
        case Scope.UNIT | Scope.SLICE:
            return "Memory"


def _set_by(machine: Sample, sample: UnitSample) -> dict[str, str]:
    """Return which cgroup, or the machine, sets `limit`, `high`, `headroom` and `fill`, as far as that is known."""
    levels = sample.levels
    bounds: dict[str, list[tuple[int | None, str]]] = {
        "high": [(level.high, level.path) for level in levels],
        "headroom": [*((_room(level), level.path) for level in levels), (machine.host.available, HOST_LEVEL)],
    }
    paths = {"limit": machine.limit_set_by(sample), "fill": machine.fill_set_by(sample)}
    for name, candidates in bounds.items():
        for bound, path in reversed(candidates):  # of equal ones the innermost
            if bound is not None and bound == sample.values.get(name):
                paths[name] = path
    return {
        name: format_level(path) for name, path in paths.items() if path is not None and name in sample.values
    }


def _value(value: float | None, name: str) -> Text:
    return Text("-", "dim") if value is None else Text(format_value(value, MEASURES[name].dimension))


def _print_grid(entries: Sequence[tuple[str, Text]], console: Console) -> None:
    """Print name and value pairs in as many columns as fit, down the columns as `ls` does."""
    entry_width = _NAME_WIDTH + GAP + _VALUE_WIDTH
    step = entry_width + 2 * GAP
    count = max(1, min((console.width - INDENT + 2 * GAP) // step, 3))
    height = -(-len(entries) // count)
    for row in range(height):
        line = Text(" " * INDENT)
        for name, value in entries[row::height]:
            line.append(name.ljust(_NAME_WIDTH + GAP))
            line.append_text(_pad_left(value, _VALUE_WIDTH))
            line.append(" " * 2 * GAP)
        line.rstrip()
        print_line(console, line)


def _print_unknown(sample: UnitSample, console: Console) -> None:
    by_reason: dict[str, list[str]] = {}
    for _, names in _sections(sample):
        for name in names:
            if name in sample.unknown:
                by_reason.setdefault(sample.unknown[name], []).append(name)
    if by_reason:
        _print_title("Unknown", console)
    for reason, names in by_reason.items():
        text = f"{', '.join(names)}: {reason}"
        for line in textwrap.wrap(
            text,
            max(_LEAST_NOTE, console.width),
            initial_indent=" " * INDENT,
            subsequent_indent=" " * 2 * INDENT,
        ):
            print_line(console, Text(line, "dim"))


# --- limits and processes --------------------------------------------------------------------------


def _print_levels(machine: Sample, sample: UnitSample, console: Console) -> None:
    host, levels = machine.host, sample.levels
    marks = {"limit": machine.limit_set_by(sample), "fill": machine.fill_set_by(sample)}

    def mark(path: str) -> Text:
        names = [name for name, whose in marks.items() if whose == path]
        return Text(f"← {', '.join(names)}" if names else "")

    rows = [
        [
            Text(level.path.rpartition("/")[2] or "/"),
            _bound(level.max, is_known="max" not in level.unknown),
            _bound(level.high, is_known="high" not in level.unknown),
            _size(level.current),
            _size(level.workingset),
            Text("") if level.max is None and "max" not in level.unknown else _size(_room(level)),
            mark(level.path),
        ]
        for level in levels
    ]
    used = None if host.total is None or host.available is None else host.total - host.available
    rows.append(
        [
            Text(format_level(HOST_LEVEL)),
            Text(format_size(sample.limit if marks["limit"] == HOST_LEVEL else host.total)),
            _bound(None),
            _size(used),
            _size(used),
            _size(host.available),
            mark(HOST_LEVEL),
        ]
    )
    columns = [
        Column("Limits, upwards", is_number=False, cut=Cut.MIDDLE, least=24),
        Column("MAX"),
        Column("HIGH"),
        Column("CURRENT", rank=1),
        Column("WORKINGSET"),
        Column("HEADROOM"),
        Column("", is_number=False),
    ]
    print_line(console)
    print_table(console, columns, rows)


def _print_processes(processes: Sequence[Process], console: Console) -> None:
    if processes:
        print_line(console)
        print_table(console, *process_table(processes))
    if hugetlb := sum(process.hugetlb or 0 for process in processes):
        note = f"{format_size(hugetlb)} of huge pages (hugetlbfs) are in neither PSS nor RSS; private ones are in USS."
        print_line(console, Text(note, "dim"))


def process_table(processes: Sequence[Process]) -> tuple[list[Column], list[list[Text]]]:
    """Return the columns and rows that show `processes`, the largest first."""
    columns = [
        Column("PID"),
        Column("PSS"),
        Column("RSS"),
        Column("USS"),
        Column("SWAPPSS"),
        Column("NAME", is_number=False, rank=1),
        Column("COMMAND", is_number=False, cut=Cut.END, least=30),
    ]
    rows = [
        [
            Text(str(process.pid)),
            *(_size(size) for size in (process.pss, process.rss, process.uss, process.swap_pss)),
            Text(printable(process.name)),
            Text(process.command or f"[{printable(process.name)}]"),
        ]
        for process in by_size(processes)
    ]
    return columns, rows


def by_size(processes: Sequence[Process]) -> list[Process]:
    """Return `processes` by PSS and huge pages, the largest first; those whose PSS is unknown follow, by RSS."""
    return sorted(
        processes,
        key=lambda process: (process.pss is None, -(process.held or 0), -(process.rss or 0), process.pid),
    )


def _size(value: int | None) -> Text:
    return Text("-", "dim") if value is None else Text(format_size(value))


def _room(level: Level) -> int | None:
    """Return the bytes left below the level's own limit; None if it has none, or if its usage is unknown."""
    return None if level.max is None or level.workingset is None else max(0, level.max - level.workingset)


def _bound(value: int | None, *, is_known: bool = True) -> Text:
    return Text("none", "dim") if value is None and is_known else _size(value)


def _print_title(title: str, console: Console) -> None:
    print_line(console)
    print_line(console, Text(title, "bold"))


def _pad_left(text: Text, width: int) -> Text:
    return Text.assemble(" " * (width - cell_len(text.plain)), text)
