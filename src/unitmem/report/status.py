"""The page of `unitmem status`: what each running watch sees, and the phase of each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unitmem.measure.catalogue import OPERANDS
from unitmem.policy.condition import format_level, format_value
from unitmem.report.styled import Text
from unitmem.report.table import Column, Cut, print_line, print_table
from unitmem.report.terminal import Console
from unitmem.text import format_span, plural

_COLUMNS = (
    Column("STEP"),
    Column("PHASE", is_number=False),
    Column("HELD"),
    Column("FOR"),
    Column("LEFT"),
    Column("WHEN", is_number=False, cut=Cut.END, least=24),
    Column("DO", is_number=False, rank=1),
)
_STYLES = {"fired": "bold red", "holding": "yellow"}


def print_statuses(documents: Sequence[Mapping[str, Any]], now: float, console: Console) -> None:
    """Print documents of `status.status_document`; `now` is the wall clock, for their age."""
    for number, document in enumerate(documents):
        if number:
            print_line(console)
        _print_watch(document, now, console)


def _print_watch(document: Mapping[str, Any], now: float, console: Console) -> None:
    age = max(0.0, now - document["at"])
    title = Text(document["instance"], "bold")
    title.append(f" - {document['file']}, every {format_span(document['interval'])}")
    print_line(console, title)
    last = format_span(age) if age >= 1 else "less than 1s"
    print_line(console, f"  last tick {last} ago, pid {document['pid']}")
    for line in _pace(document):
        print_line(console, f"  {line}")
    if not document["manager_reachable"]:
        print_line(console, Text("  the service manager is out of reach: nothing can be stopped now", "red"))
    if document["budget"] is not None:
        print_line(console, f"  for all policies together: {_budget(document['budget'])}")
    for what in document["to_set_back"]:
        print_line(console, f"  to be set back: {what}")
    if not document["units"]:
        print_line(console, "  no governed unit is running")
    for unit in document["units"]:
        _print_unit(unit, console)
    for entry in document["cooling"]:
        left = format_span(entry["left"])
        print_line(console)
        print_line(
            console, f"{entry['unit']} does not run; policy {entry['policy']} cools down for another {left}"
        )


def _pace(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the pace of looks rests on; a document of an earlier version doesn't say."""
    nearest, unread = document.get("nearest"), document.get("unread")
    if nearest is not None and nearest["every"] < document["interval"]:
        every = format_span(nearest["every"], accuracy=0.001)
        yield f"looks every {every} at {nearest['unit']}, the nearest to a threshold"
    if unread:
        yield f"{plural(unread, 'unit')} far from every threshold: values are up to 30s old"


def _print_unit(unit: Mapping[str, Any], console: Console) -> None:
    print_line(console)
    title = Text(unit["unit"], "bold")
    observing = ", which only observes" if unit["mode"] == "observe" else ""
    title.append(f" by policy {unit['policy']}{observing}")
    print_line(console, title)
    for line in _facts(unit):
        print_line(console, f"  {line}")
    print_table(console, _COLUMNS, [_row(step) for step in unit["steps"]], indent=2)
    for step in unit["steps"]:
        for line in _remarks(step):
            print_line(console, Text(f"  step {step['step']}: {line}", "yellow"))


def _facts(unit: Mapping[str, Any]) -> Iterator[str]:
    yield ", ".join(_value(unit, measure) for measure in unit["values"])
    for measure, why in unit["unknown"].items():
        yield f"{measure} is unknown: {why}"
    if unit["protected"] is not None:
        effect = (
            "but acted on, as `unprotect` names it" if unit["unprotected"] else "so only `log` is performed"
        )
        yield f"protected, {effect}: {unit['protected']}"
    if unit["episode_since"] is not None:
        end = f"ends when {unit['clear']}" if unit["clear"] else "ends when no condition holds"
        yield f"in an episode for {format_span(unit['episode_since'])}, which {end}"
    if unit["cooldown_left"] is not None:
        yield f"cooling down for another {format_span(unit['cooldown_left'])}"
    if unit["budget"] is not None:
        reserved = unit.get("reserved_for")
        kept = f", the last one for `{reserved}` only" if reserved and unit["budget"]["left"] else ""
        yield _budget(unit["budget"]) + kept


def _value(unit: Mapping[str, Any], measure: str) -> str:
    value = unit["values"][measure]
    dimension = OPERANDS[measure].dimension
    if value is not None:
        whose = unit.get("fill_set_by") if measure == "fill" else None
        at = "" if whose is None else f" at {format_level(whose)}"
        return f"{measure} {format_value(value, dimension)}{at}"
    if measure in unit["at_most"]:
        return f"{measure} at most {format_value(unit['at_most'][measure], dimension)}"
    return f"{measure} -"


def _row(step: Mapping[str, Any]) -> list[Text]:
    def span(seconds: float | None) -> Text:
        return Text("-" if seconds is None else format_span(seconds))

    return [
        Text(str(step["step"])),
        Text(step["phase"], _STYLES.get(step["phase"], "dim")),
        span(step["held"]),
        span(step["for"]),
        span(step["left"]),
        Text(step["when"]),
        Text(step["action"] + (f", picked by {by}" if (by := step.get("pick")) else "")),
    ]


def _remarks(step: Mapping[str, Any]) -> Iterator[str]:
    if step["fired_ago"] is not None:
        yield f"fired {format_span(step['fired_ago'])} ago"
    if step["under_way"] is not None:
        yield f"under way: {step['under_way']}"
    if step["withheld"] is not None:
        yield f"due, but {step['withheld']}"
    for name, why in step["unknown"].items():
        yield f"can't be judged: {name} is unknown ({why})"


def _budget(budget: Mapping[str, Any]) -> str:
    return f"budget: {budget['left']} of {budget['actions']} actions per {format_span(budget['per'])} left"
