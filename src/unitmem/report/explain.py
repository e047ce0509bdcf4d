"""The page of `unitmem explain`: a unit's story in sentences, with a picture of what led to it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from rich.console import Console
from rich.text import Text

from unitmem.explain.attribution import Cause, Ending
from unitmem.measure.catalogue import MEASURES
from unitmem.policy.actions import Log
from unitmem.policy.condition import format_value
from unitmem.record.history import Event, Kind
from unitmem.report.picture import draw
from unitmem.report.table import Column, Cut, print_line, print_table
from unitmem.text import format_size

Series = Callable[[str, str, float, float], Sequence[tuple[float, float]]]
"""(unit, measure, since, until) -> (wall clock, value)."""

_BEFORE, _AFTER = 120.0, 30.0
"""Seconds that a picture shows around the events."""
_GAP = 900.0
"""Seconds of quiet after which a new chapter begins."""
_STYLES = {Kind.DECISION: "yellow", Kind.OUTCOME: "green", Kind.UNKNOWN: "dim", Kind.SET_BACK: "dim"}
_PROCESSES = 5
_BY = {
    Cause.OOM_KILLER: "ended by the kernel's OOM killer, not by unitmem",
    Cause.SYSTEMD_OOMD: "ended by systemd-oomd, not by unitmem",
    Cause.UNITMEM: "ended by unitmem",
    Cause.REQUEST: "stopped on request, not by unitmem",
    Cause.SIGNAL_REQUEST: "ended by a signal, not by unitmem",
    Cause.TIMEOUT: "ended by systemd, after a timeout",
    Cause.CRASH: "it failed by itself",
    Cause.EXIT: "it ended",
    Cause.UNKNOWN: "it ended for an unknown reason",
}


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is known of one unit."""

    unit: str
    events: Sequence[Event]
    endings: Sequence[Ending] | None = None
    """Of its runs, by whoever's hand; None if nobody asked for them."""


def print_story(story: Story, series: Series, console: Console, *, otherwise: str) -> None:
    """Print what happened to a unit, oldest first, in chapters of what happened together; `otherwise` if nothing did."""
    print_line(console, Text(story.unit, "bold"))
    if not story.events and not story.endings:
        print_line(console, f"  {otherwise}")
        return
    for chapter in _chapters(story):
        print_line(console)
        _print_picture(story.unit, chapter, series, console)
        for moment in chapter:
            _print_moment(moment, story.unit, console)


def print_overview(stories: Sequence[Story], console: Console) -> None:
    """Print a line for each unit: how often something was logged, done, observed only, or withheld, and what was last."""
    columns = (
        Column("UNIT", is_number=False, cut=Cut.MIDDLE, least=20),
        Column("LAST", is_number=False),
        Column("LOGGED"),
        Column("DONE"),
        Column("OBSERVED"),
        Column("WITHHELD"),
        Column("WHAT", is_number=False, rank=1),
    )
    rows = []
    for story in stories:
        counts = Counter(_fate(event) for event in story.events if event.kind is Kind.DECISION)
        last = story.events[-1]
        rows.append(
            [
                Text(story.unit),
                Text(_when(last.at)),
                *(Text(str(counts[fate])) for fate in _Fate),
                Text(f"{last.action or last.kind}{f' {last.result}' if last.result else ''}"),
            ]
        )
    print_table(console, columns, rows)


class _Fate(Enum):
    """What a decision led to, in the order of the columns."""

    LOGGED = auto()
    DONE = auto()
    OBSERVED = auto()
    WITHHELD = auto()


def _fate(decision: Event) -> _Fate:
    if decision.obstacle is not None:
        return _Fate.WITHHELD
    if decision.result is not None:
        return _Fate.OBSERVED
    return _Fate.LOGGED if decision.action == Log.keyword else _Fate.DONE


def story_document(story: Story) -> dict[str, Any]:
    """The same as JSON takes it."""
    return {
        "unit": story.unit,
        "events": [_event_document(event) for event in story.events],
        "endings": None if story.endings is None else [_ending_document(ending) for ending in story.endings],
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


def _chapters(story: Story) -> list[list[Event | Ending]]:
    moments: list[Event | Ending] = sorted(
        [*story.events, *(story.endings or ())], key=lambda moment: moment.at
    )
    chapters: list[list[Event | Ending]] = []
    for moment in moments:
        if chapters and moment.at - chapters[-1][-1].at <= _GAP:
            chapters[-1].append(moment)
        else:
            chapters.append([moment])
    return chapters


def _print_moment(moment: Event | Ending, unit: str, console: Console) -> None:
    stamp = f"  {_when(moment.at)}  "
    if isinstance(moment, Ending):
        sentence, style = _sentence(moment), "bold"
    else:
        sentence, style = moment.message, _STYLES.get(moment.kind, "")
    sentence = sentence.removeprefix(f"{unit}: ")
    first, *more = textwrap.wrap(sentence, max(40, console.width - len(stamp))) or [""]
    print_line(console, Text.assemble((stamp, "dim"), (first, style)))
    for line in more:
        print_line(console, Text(" " * len(stamp) + line, style))
    if isinstance(moment, Event) and moment.obstacle is None:
        for line in _processes(moment.detail.get("processes", [])):
            print_line(console, Text(" " * len(stamp) + line, "dim"))


def _sentence(ending: Ending) -> str:
    """Who ended a run of it, or killed a process in it, and how."""
    if not ending.ended:
        return f"one of its processes was killed, and the unit kept running: {ending.detail}"
    return f"{_BY[ending.cause]}: {ending.detail}"


def _processes(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The largest processes at that moment, where there were several; one alone says nothing new."""
    if len(processes) < 2:
        return []
    shown = [
        f"pid {process['pid']} ({process['name']}) {_weight(process)}" for process in processes[:_PROCESSES]
    ]
    return textwrap.wrap("its processes then: " + ", ".join(shown), 100)


def _weight(process: Mapping[str, Any]) -> str:
    if process["pss"] is not None:
        return f"PSS {format_size(process['pss'])}"
    return f"RSS {format_size(process['rss'])}"


def _print_picture(unit: str, chapter: Sequence[Event | Ending], series: Series, console: Console) -> None:
    """What the first measure that breached did around the chapter, with every threshold of it that was met."""
    thresholds: dict[tuple[str | None, int | None], float] = {}
    measure = None
    for moment in chapter:
        for finding in moment.detail.get("findings", []) if isinstance(moment, Event) else []:
            if finding["measure"] not in MEASURES or finding["threshold"] is None:
                continue
            measure = measure or finding["measure"]
            if finding["measure"] == measure and isinstance(moment, Event):
                thresholds[moment.policy, moment.step] = finding["threshold"]
    if measure is None:
        return
    points = series(unit, measure, chapter[0].at - _BEFORE, chapter[-1].at + _AFTER)
    if len(points) < 2:
        return
    dimension = MEASURES[measure].dimension
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
