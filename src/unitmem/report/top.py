"""The live table of `unitmem top`: its view as a value, the effect of keys on it, and its lines.

Terminal, clock and files are in `cli.top`. In its loop, each key goes to `press`, then `arrange` fits the view to
the units, and `render` returns the lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isinf
from typing import Any

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.condition import ETA_USAGE, Comparison, Derivation
from unitmem.policy.levels import time_left
from unitmem.policy.slopes import MIN_POINTS
from unitmem.policy.trends import NO_LEVELS, LevelTrends, Trend, UnitFacts, extend, extend_levels
from unitmem.report.styled import Text, cell_len
from unitmem.report.table import Column, Cut, print_table, table_lines
from unitmem.report.terminal import Console
from unitmem.report.unit import process_table
from unitmem.report.units import DEFAULT_SORT, FIELDS, Field, format_host, sort_units, style, used
from unitmem.text import format_percent, format_size, format_span, plural, printable

SORT_FIELDS = ("unit", *(name for name in FIELDS if name != "pss"), "growth", "eta")
"""The fields of `unitmem list`, and growth and eta; without PSS, which is read only for the open unit."""
_SHOWN = ("used", "workingset", "limit", "current", "pressure", "growth", "eta")
# the first to go where it is narrow; what the table is sorted by is never left out
_RANKS = {"used": 7, "current": 6, "limit": 5, "eta": 4, "pressure": 3, "growth": 2}
_PHASE_RANK = 1

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_FAR = 30  # days, beyond which a pace of one minute tells nothing
_SOON, _VERY_SOON = _HOUR, 10 * _MINUTE

BAR = 8
_MARK = 2  # in front of each row: `>` and a space where it is the selected one
_CHROME = 4  # the machine, the view, the header; and the line at the bottom
_PROCESS_CHROME = 5

_SORT_KEYS = {
    "m": "workingset",
    "c": "current",
    "u": "used",
    "p": "pressure",
    "g": "growth",
    "t": "eta",
    "n": "unit",
}
_HINT = "? help  q quit  ↑↓ select  Enter processes  / filter  m g p t n sort"
_PROCESS_HINT = "? help  q back  ↑↓ scroll  Space pause"
HELP = (
    "↑ ↓  k j           select a unit, or scroll",
    "PgUp PgDn Home End a page, the first, the last",
    "Enter              the unit's processes, by PSS",
    "q  Esc             back; quit",
    "/                  only units whose name has this text; Enter keeps it, Esc drops it",
    "m c u              sort by working set, by current, by share of the limit",
    "p g t n            by pressure, growth, time to the limit, name",
    "< >                by the previous or next field",
    "Space              pause",
    "r                  refresh the list of units",
    "",
    "USED      how much of LIMIT the WORKSET takes",
    "WORKSET   the unit's memory without inactive page cache",
    "LIMIT     the tightest one from the unit up to the machine",
    "PRESS     share of the last 10 s in which a task waited for memory",
    "GROW/MIN  of memory that can't be reclaimed, over the last minute of this view",
    "TO LIMIT  when the first limit is met at that pace: a policy's eta(limit, 1min)",
    "PHASE     how far a running watch is with the unit's steps",
)


# --- what there is to see ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """The machine at one instant, with growth and phases."""

    machine: Sample
    growth: Mapping[str, float] = field(default_factory=dict)
    """Bytes a second that unreclaimable memory grows by, by unit, and by level: the path of a slice, or `host`.

    Those not watched for long enough are missing.
    """
    phases: Mapping[str, str] = field(default_factory=dict)
    """The furthest phase of a step, by unit: `holding 12s/30s (web-leak, step 2)`."""
    opened: UnitSample | None = None
    """The unit that is open, with its processes."""
    notice: str | None = None
    """A problem to show in the line at the bottom."""

    def eta(self, sample: UnitSample) -> float | None:
        """Return the seconds until the first level of `sample` is full; None when none grows, or one is unknown."""
        name = sample.unit.name
        if name not in self.growth:
            return None
        left = time_left(
            sample, self.machine.host, "limit", lambda path: self.growth.get(name if path is None else path)
        )
        if left is None:
            return None
        bounds, _ = left
        return None if bounds.low != bounds.high or isinf(bounds.high) else bounds.high

    def find(self, name: str) -> UnitSample | None:
        return self.machine.units.get(name)


# --- growth --------------------------------------------------------------------------------------


class GrowthTrend:
    """The trends of `eta(limit, 1min)`, by unit; in a slow view, over as long as a slope takes.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, interval: float) -> None:
        self._span = max(_MINUTE, float(MIN_POINTS * interval))
        self._wanted = (Comparison("limit", "<", 0.0, span=self._span, derivation=Derivation.ETA),)
        self._trends: dict[str, Trend] = {}
        self._levels: LevelTrends = NO_LEVELS

    def add(self, at: float, machine: Sample) -> dict[str, float]:
        """Add `machine`, sampled at the monotonic second `at`; return bytes a second by unit, and by level.

        Unlike a policy's, a growth is known before its whole span was watched: once there are five points.
        """
        kept = {}
        self._levels = extend_levels(self._levels, machine, dict.fromkeys(machine.units, self._wanted), at)
        growth = {path: level.slope for (path, _), level in self._levels.items() if level.slope is not None}
        for name, sample in machine.units.items():
            trend = extend(self._trends.get(name), sample, self._wanted, at)
            if trend is None:
                continue
            kept[name] = trend
            slope = UnitFacts(sample, trend, at).slope(ETA_USAGE, self._span)
            if slope is not None:
                growth[name] = slope
        self._trends = kept
        return growth


# --- phases --------------------------------------------------------------------------------------


def phases_of(documents: Iterable[object]) -> dict[str, str]:
    """Return the furthest phase of a step by unit, from the status documents of running watches.

    The highest step that has fired or holds counts, whichever policy or watch it belongs to. Malformed documents
    are ignored.
    """
    best: dict[str, tuple[tuple[int, bool], str]] = {}
    for document in documents:
        entries = document.get("units") if isinstance(document, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
                progress, text = _phase(entry)
                if (unit := str(entry["unit"])) not in best or progress > best[unit][0]:
                    best[unit] = progress, text
    return {unit: text for unit, (_, text) in best.items()}


def _phase(entry: Mapping[str, Any]) -> tuple[tuple[int, bool], str]:
    """Return ((step, whether it fired), text) of one unit under one policy; the step is 0 if none fired or holds."""
    policy = printable(str(entry["policy"]))
    begun = [step for step in entry["steps"] if step["phase"] in {"holding", "fired"}]
    if not begun:
        left = entry.get("cooldown_left")
        if left:
            return (0, True), f"cooldown {format_span(_whole(left))} ({policy})"
        return (0, False), f"idle ({policy})"
    step = max(begun, key=lambda step: int(step["step"]))
    number, fired = int(step["step"]), step["phase"] == "fired"
    what = "fired"
    if not fired:
        lasts = step.get("for")
        what = f"holding {format_span(_whole(step.get('held') or 0))}"
        what += f"/{format_span(float(lasts))}" if lasts else ""
    return (number, fired), f"{what} ({policy}, step {number})"


def _whole(seconds: float) -> int:
    return int(float(seconds))


# --- the view ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """The view that a person has chosen: sorting, filter, selection, and the place of the screen in the table."""

    sort: str = DEFAULT_SORT
    filter: str = ""
    typing: bool = False
    """Whether keys are input of the filter."""
    selected: str | None = None
    """The name of the selected unit; None is the first row, whichever unit that is."""
    opened: str | None = None
    """The unit whose processes are shown."""
    paused: bool = False
    helping: bool = False
    stale: bool = False
    """Whether units have to be listed again."""
    ended: bool = False

    rows: tuple[str, ...] = ()
    """The units that match, in order; `arrange` sets this and the fields below."""
    page: int = 1
    """The number of rows that fit on the screen."""
    first: int = 0
    """The row at the top of the screen."""
    scroll: int = 0
    """The process at the top of the screen."""


def press(view: View, key: str) -> View:
    """Return `view` after `key`.

    It is one character, or `up` `down` `pageup` `pagedown` `home` `end` `enter` `escape` `backspace`.
    """
    if view.typing:
        return _type(view, key)
    if view.helping:
        return replace(view, helping=False)
    match key:
        case "?" | "h":
            return replace(view, helping=True)
        case "q" | "escape":
            return _back(view, key)
        case " ":
            return replace(view, paused=not view.paused)
        case "r":
            return replace(view, stale=True)
        case "up" | "k":
            return _move(view, -1)
        case "down" | "j":
            return _move(view, 1)
        case "pageup":
            return _move(view, -view.page)
        case "pagedown":
            return _move(view, view.page)
        case "home":
            return replace(view, scroll=0) if view.opened else replace(view, selected=None)
        case "end":
            return _move(view, 1 << 30)
    return view if view.opened else _press_in_list(view, key)


def _press_in_list(view: View, key: str) -> View:
    match key:
        case "enter" if view.rows:
            return replace(view, opened=view.selected or view.rows[0], scroll=0)
        case "/":
            return replace(view, typing=True)
        case "<" | ">":
            index = SORT_FIELDS.index(view.sort) + (1 if key == ">" else -1)
            return replace(view, sort=SORT_FIELDS[index % len(SORT_FIELDS)])
    return replace(view, sort=_SORT_KEYS[key]) if key in _SORT_KEYS else view


def _type(view: View, key: str) -> View:
    match key:
        case "enter":
            return replace(view, typing=False)
        case "escape":
            return replace(view, typing=False, filter="")
        case "backspace":
            return replace(view, filter=view.filter[:-1])
        case _ if len(key) == 1 and key.isprintable():
            return replace(view, filter=view.filter + key)
    return view


def _back(view: View, key: str) -> View:
    if view.opened:
        return replace(view, opened=None)
    if view.filter and key == "escape":
        return replace(view, filter="")
    return replace(view, ended=True)


def _move(view: View, step: int) -> View:
    if view.opened:
        return replace(view, scroll=max(0, view.scroll + step))
    if not view.rows:
        return view
    index = max(0, min(_index(view) + step, len(view.rows) - 1))
    return replace(view, selected=view.rows[index] if index else None)


def _index(view: View) -> int:
    """Return the row of the selected unit; 0 if it isn't there."""
    return view.rows.index(view.selected) if view.selected in view.rows else 0


def arrange(view: View, look: Look, size: os.terminal_size) -> View:
    """Return `view` with the rows of `look` in order, scrolled so that the selected one is on a screen of `size`.

    The selection stays with its unit. If that is gone, the unit in its row is selected.
    """
    rows = tuple(sample.unit.name for sample in _sorted(view, look))
    page = max(1, size.lines - _CHROME)
    selected = view.selected
    if selected is not None and selected not in rows:
        index = min(_index(view), len(rows) - 1)
        selected = rows[index] if index > 0 else None
    index = 0 if selected is None else rows.index(selected)
    first = max(0, min(view.first, index, len(rows) - page), index - page + 1)
    processes = look.opened.processes if look.opened is not None else ()
    scroll = max(0, min(view.scroll, len(processes) - max(1, size.lines - _PROCESS_CHROME)))
    return replace(view, rows=rows, page=page, selected=selected, first=first, scroll=scroll)


def _sorted(view: View, look: Look) -> list[UnitSample]:
    wanted = view.filter.casefold()
    matching = [sample for sample in look.machine.units.values() if wanted in sample.unit.name.casefold()]
    return sort_units(matching, view.sort, _fields(look))


# --- columns -------------------------------------------------------------------------------------


def _fields(look: Look) -> dict[str, Field]:
    """Return the fields that the table can be sorted by."""
    fields = {name: replace(field, rank=_RANKS.get(name, 0)) for name, field in FIELDS.items()}
    fields["workingset"] = replace(fields["workingset"], header="WORKSET")
    fields["pressure"] = replace(fields["pressure"], header="PRESS")
    fields["growth"] = Field(
        "GROW/MIN", lambda sample: look.growth.get(sample.unit.name), _format_growth, rank=_RANKS["growth"]
    )
    fields["eta"] = Field("TO LIMIT", look.eta, format_eta, rank=_RANKS["eta"], least_first=True)
    return fields


def _table(
    look: Look, samples: Sequence[UnitSample], sort: str, *, live: bool
) -> tuple[list[Column], list[list[Text]]]:
    """Return the columns, and a row for each of `samples`; only a live table has bars, and short phases."""
    fields = _fields(look)
    names = [*_SHOWN, *(() if sort in (*_SHOWN, "unit") else (sort,))]
    columns = [Column("UNIT", is_number=False, cut=Cut.MIDDLE, least=20)]
    if live:
        columns.append(Column("USED", is_number=False, steady=BAR))
    for name in names:
        field = fields[name]
        widest = {"used": 6, "pressure": 6, "growth": 8, "eta": 8}.get(name, 7)
        columns.append(Column(field.header, rank=0 if name == sort else field.rank, steady=widest))
    if look.phases:
        phase = Column(
            "PHASE", is_number=False, rank=_PHASE_RANK, steady=len("holding 12s/30s") if live else 0
        )
        columns.append(phase)
    rows = []
    for sample in samples:
        row = [Text(sample.unit.name)]
        if live:
            row.append(_bar(look, sample))
        row += (_cell(name, fields[name], look, sample) for name in names)
        if look.phases:
            row.append(_phase_cell(look.phases.get(sample.unit.name, ""), short=live))
        rows.append(row)
    return columns, rows


def _cell(name: str, field: Field, look: Look, sample: UnitSample) -> Text:
    value = field.value(sample)
    urgent = ""
    if name == "eta" and value is not None:
        urgent = "bold red" if value < _VERY_SOON else "yellow" if value < _SOON else ""
    return Text(field.format(value), urgent or style(name, value, look.machine, sample))


def _bar(look: Look, sample: UnitSample) -> Text:
    percent = used(sample)
    if percent is None:
        return Text("-", "dim")
    return Text(bar(percent), style("used", percent, look.machine, sample) or "green")


def bar(percent: float, width: int = BAR) -> str:
    """Return a bar of `width` cells, of which `percent` are filled, rounded down to half a cell.

    >>> bar(70, width=5)
    '███▌░'
    """
    # the half block is the finest one that the kernel's own console has
    full, half = divmod(int(max(0.0, min(percent, 100.0)) * 2 * width / 100), 2)
    return ("█" * full + "▌" * half).ljust(width, "░")


def _phase_cell(phase: str, *, short: bool) -> Text:
    urgency = {"fired": "bold red", "holding": "yellow", "idle": "dim"}.get(phase.partition(" ")[0], "")
    return Text(phase.partition(" (")[0] if short else phase, urgency)


def _format_growth(value: float | None) -> str:
    if value is None:
        return "-"
    size = round(value * _MINUTE)
    return f"{'+' if size > 0 else ''}{format_size(size)}"


def format_eta(seconds: float | None) -> str:
    """Return a span in at most eight characters, rounded more the longer it is: `9min 59s`, `23h`, `>30d`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return "now"
    if seconds < _DAY:
        accuracy = 1 if seconds < 10 * _MINUTE else _MINUTE if seconds < 10 * _HOUR else _HOUR
        return format_span(seconds, accuracy)
    days, hours = int(seconds // _DAY), int(seconds % _DAY // _HOUR)
    if days >= _FAR:
        return f">{_FAR}d"
    return f"{days}d {hours}h" if days < 10 and hours else f"{days}d"


# --- lines ---------------------------------------------------------------------------------------


def render(view: View, look: Look, size: os.terminal_size) -> list[Text]:
    """Return exactly the lines of a screen of `size`, none wider than it; `view` must come from `arrange`."""
    if view.helping:
        lines, bottom = [Text("Keys and columns", "bold"), Text(), *map(Text, HELP)], "any key: back"
    elif view.opened:
        lines, bottom = _opened(view, look, size)
    else:
        lines, bottom = _list(view, look, size)
    lines = lines[: max(0, size.lines - 1)]
    lines += [Text()] * (size.lines - 1 - len(lines))
    lines.append(Text(bottom, "yellow" if bottom == look.notice else "dim"))
    for line in lines:
        line.truncate(size.columns)
    return lines


def print_top(look: Look, sort: str, console: Console) -> None:
    """Print the units of `look` once, as a plain table, where there is no terminal."""
    columns, rows = _table(
        look, sort_units(look.machine.units.values(), sort, _fields(look)), sort, live=False
    )
    print_table(console, columns, rows)


def _list(view: View, look: Look, size: os.terminal_size) -> tuple[list[Text], str]:
    names = view.rows[view.first : view.first + view.page]
    columns, rows = _table(look, [look.machine.units[name] for name in names], view.sort, live=True)
    # as wide as the longest of all, so that scrolling moves nothing
    columns[0] = replace(columns[0], steady=max(map(len, view.rows), default=0))
    lines = table_lines(columns, rows, size.columns, indent=_MARK)
    index = _index(view)
    if names:
        lines[1 + index - view.first] = _marked(lines[1 + index - view.first], size.columns)
    phase = look.phases.get(view.rows[index]) if view.rows else None
    if view.typing:
        bottom = f"/{view.filter}_"
    else:
        bottom = look.notice or (f"{view.rows[index]}: {phase}" if phase else _HINT)
    return [_machine(look), _summary(view, look), *lines], bottom


def _marked(line: Text, width: int) -> Text:
    (indent, _), *pieces = line.pieces
    padding = " " * (width - cell_len(line.plain))
    pieces = [(f">{indent[1:]}", ""), *pieces, (padding, "")]
    return Text.assemble(*((plain, f"{style} reverse") for plain, style in pieces))


def _machine(look: Look) -> Text:
    host = look.machine.host
    line = f"Machine: {format_host(host)}"
    if (pressure := host.values.get("host.pressure.some.avg10")) is not None:
        line += f", pressure {format_percent(pressure)}"
    return Text(line)


def _summary(view: View, look: Look) -> Text:
    count, shown = len(look.machine.units), len(view.rows)
    line = plural(count, "unit")
    if view.filter:
        line += f", {shown} with {view.filter!r}"
    if shown > view.page:
        line += f", {view.first + 1} to {min(shown, view.first + view.page)} shown"
    return Text(f"{line}, by {view.sort}{', paused' if view.paused else ''}")


def _opened(view: View, look: Look, size: os.terminal_size) -> tuple[list[Text], str]:
    name = view.opened or ""
    sample = look.opened
    lines = [Text(f"{name}{', paused' if view.paused else ''}", "bold")]
    if sample is None or sample.unit.name != name:
        return [
            *lines,
            Text("It has no cgroup now, so there is nothing to see."),
        ], look.notice or _PROCESS_HINT
    lines += [_numbers(look, look.find(name) or sample), Text(look.phases.get(name, ""))]
    columns, rows = process_table(sample.processes)
    header, *rest = table_lines(columns, rows, size.columns)
    lines += [header, *rest[view.scroll : view.scroll + max(1, size.lines - _PROCESS_CHROME)]]
    return lines, look.notice or _unknown(sample) or _PROCESS_HINT


def _unknown(sample: UnitSample) -> str | None:
    reason = sample.unknown.get("pss")
    return f"PSS unknown: {reason}" if reason else None


def _numbers(look: Look, sample: UnitSample) -> Text:
    fields = _fields(look)

    def value(name: str) -> str:
        return fields[name].format(fields[name].value(sample))

    line = f"{value('workingset')} of {value('limit')} ({value('used')}), current {value('current')}"
    line += f", pressure {value('pressure')}"
    if sample.unit.name in look.growth:
        line += f", {value('growth')}/min"
    if look.eta(sample) is not None:
        line += f", {value('eta')} to go"
    return Text(line)
