"""The page of `unitmem explain`: what happened to a unit, in sentences, with a picture of the measure before."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from unitmem.explain.attribution import Cause, Ending
from unitmem.measure.catalogue import OPERANDS
from unitmem.policy.actions import Log
from unitmem.policy.condition import format_value
from unitmem.record.event import Event, EventKind
from unitmem.report.picture import draw
from unitmem.report.styled import Text
from unitmem.report.table import Column, Cut, print_line, print_table
from unitmem.report.terminal import Console
from unitmem.text import format_size
from unitmem.unit import titled

Series = Callable[[str, str, float, float], Sequence[tuple[float, float]]]
"""(unit, measure, since, until) -> (wall clock, value)."""

_BEFORE, _AFTER = 120.0, 30.0
"""Seconds that a picture shows before and after the events."""
_GAP = 900.0
"""Seconds without events after which a new group begins."""
_STYLES = {
    EventKind.DECISION: "yellow",
    EventKind.OUTCOME: "green",
    EventKind.UNKNOWN: "dim",
    EventKind.SET_BACK: "dim",
}
_PROCESSES = 5
_BY = {
    Cause.OOM_KILLER: "ended by the kernel's OOM killer, not by unitmem",
    Cause.SYSTEMD_OOMD: "ended by systemd-oomd, not by unitmem",
    Cause.UNITMEM: "ended by unitmem",
    Cause.REQUEST: "stopped on request, not by unitmem",
    Cause.SIGNAL_REQUEST: "ended by a signal, not by unitmem",
    Cause.TIMEOUT: "ended by systemd, after a timeout",
    Cause.CRASH: "it failed",
    Cause.EXIT: "it ended",
    Cause.UNKNOWN: "it ended for an unknown reason",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The events and endings of one unit."""

    unit: str
    events: Sequence[Event]
    endings: Sequence[Ending] | None = None
    """The endings of its runs, whatever their cause; None where they were not read."""

    @property
    def content(self) -> str:
        """What ran in it last, where its name doesn't say it and an event does; else empty."""
        return next((found for event in reversed(self.events) if (found := _content(event))), "")


def print_explanation(explanation: Explanation, series: Series, console: Console, *, otherwise: str) -> None:
    """Print what happened to a unit, oldest first, in groups of events close in time; `otherwise` if there are none."""
    print_line(console, Text(titled(explanation.unit, explanation.content), "bold"))
    if not explanation.events and not explanation.endings:
        print_line(console, f"  {otherwise}")
        return
    for group in _groups(explanation):
        print_line(console)
        _print_picture(explanation.unit, group, series, console)
        for item in group:
            _print_item(item, explanation, console)


def print_overview(explanations: Sequence[Explanation], console: Console) -> None:
    """Print a line for each unit: counts of decisions logged, done, observed only, and withheld, and the last event.

    What ran in a unit is shown where its name doesn't say it, and where there is room.
    """
    has_contents = any(explanation.content for explanation in explanations)
    columns = (
        Column("UNIT", is_number=False, cut=Cut.MIDDLE, least=20),
        Column("LAST", is_number=False),
        Column("LOGGED"),
        Column("DONE"),
        Column("OBSERVED"),
        Column("WITHHELD"),
        Column("WHAT", is_number=False, rank=1),
        *([Column("DESCRIPTION", is_number=False, rank=2)] if has_contents else []),
    )
    rows = []
    for explanation in explanations:
        counts = Counter(_effect(event) for event in explanation.events if event.kind is EventKind.DECISION)
        last = explanation.events[-1]
        rows.append(
            [
                Text(explanation.unit),
                Text(_when(last.at)),
                *(Text(str(counts[effect])) for effect in _Effect),
                Text(f"{last.action or last.kind}{f' {last.result}' if last.result else ''}"),
                *([Text(explanation.content)] if has_contents else []),
            ]
        )
    print_table(console, columns, rows)


class _Effect(Enum):
    """The kinds of decisions that are counted, in the order of the columns."""

    LOGGED = auto()
    DONE = auto()
    OBSERVED = auto()
    WITHHELD = auto()


def _effect(decision: Event) -> _Effect:
    if decision.obstacle is not None:
        return _Effect.WITHHELD
    if decision.result is not None:
        return _Effect.OBSERVED
    return _Effect.LOGGED if decision.action == Log.keyword else _Effect.DONE


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """Return what `unitmem explain --json` prints about a unit."""
    return {
        "unit": explanation.unit,
        "description": explanation.content or None,
        "events": [_event_document(event) for event in explanation.events],
        "endings": None
        if explanation.endings is None
        else [_ending_document(ending) for ending in explanation.endings],
    }


def _ending_document(ending: Ending) -> dict[str, Any]:
    return {
        "at": ending.at,
        "invocation_id": ending.invocation_id,
        "ended": ending.ended,
        "cause": ending.cause,
        "detail": ending.detail,
        "evidence": list(ending.evidence),
    }


def _event_document(event: Event) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": event.kind,
        "message": event.message,
        "invocation_id": event.run,
        "policy": event.policy,
        "step": event.step,
        "action": event.action,
        "result": event.result,
        "obstacle": event.obstacle,
        **event.detail,
    }


def _groups(explanation: Explanation) -> list[list[Event | Ending]]:
    items: list[Event | Ending] = sorted(
        [*explanation.events, *(explanation.endings or ())], key=lambda item: item.at
    )
    groups: list[list[Event | Ending]] = []
    for item in items:
        if groups and item.at - groups[-1][-1].at <= _GAP:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _content(event: Event) -> str:
    return str(event.detail.get("description", ""))


def _print_item(item: Event | Ending, explanation: Explanation, console: Console) -> None:
    stamp = f"  {_when(item.at)}  "
    if isinstance(item, Ending):
        sentence, style = _sentence(item), "bold"
    else:
        sentence, style = item.message, _STYLES.get(item.kind, "")
    # the heading has it, but for what else ran under that name before
    for heading in (titled(explanation.unit, explanation.content), explanation.unit):
        sentence = sentence.removeprefix(f"{heading}: ")
    first, *more = textwrap.wrap(sentence, max(40, console.width - len(stamp))) or [""]
    print_line(console, Text.assemble((stamp, "dim"), (first, style)))
    for line in more:
        print_line(console, Text(" " * len(stamp) + line, style))
    if isinstance(item, Event) and item.obstacle is None:
        for line in _processes(item.detail.get("processes", [])):
            print_line(console, Text(" " * len(stamp) + line, "dim"))


def _sentence(ending: Ending) -> str:
    """Return the sentence on an ending: what ended the run, or killed a process in it, and how."""
    if not ending.ended:
        return f"one of its processes was killed, and the unit kept running: {ending.detail}"
    return f"{_BY[ending.cause]}: {ending.detail}"


def _processes(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines on the largest processes at that time; none if there was only one."""
    if len(processes) < 2:
        return []
    shown = [
        f"pid {process['pid']} ({process['name']}) {_size(process)}" for process in processes[:_PROCESSES]
    ]
    return textwrap.wrap("its processes then: " + ", ".join(shown), 100)


def _size(process: Mapping[str, Any]) -> str:
    if process["pss"] is not None:
        return f"PSS {format_size(process['pss'])}"
    return f"RSS {format_size(process['rss'])}"


def _print_picture(unit: str, group: Sequence[Event | Ending], series: Series, console: Console) -> None:
    """Print a picture of the first measure that breached, from before the group to after it, with its thresholds."""
    thresholds: dict[tuple[str | None, int | None], float] = {}
    measure = None
    for item in group:
        for finding in item.detail.get("findings", []) if isinstance(item, Event) else []:
            if finding["measure"] not in OPERANDS or finding["threshold"] is None:
                continue
            measure = measure or finding["measure"]
            if finding["measure"] == measure and isinstance(item, Event):
                thresholds[item.policy, item.step] = finding["threshold"]
    if measure is None:
        return
    points = series(unit, measure, group[0].at - _BEFORE, group[-1].at + _AFTER)
    if len(points) < 2:
        return
    dimension = OPERANDS[measure].dimension
    width = max(20, min(60, console.width - 34))
    is_one_policy = len({policy for policy, _ in thresholds}) == 1
    labelled = [
        (f"step {step}:" if is_one_policy else f"{policy}, step {step}:", value)
        for (policy, step), value in thresholds.items()
    ]
    lines = draw(points, labelled, lambda value: format_value(value, dimension), width)
    print_line(console, f"  {measure}, {_when(points[0][0])} to {_when(points[-1][0])}")
    for line in lines:
        print_line(console, f"  {line}")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
