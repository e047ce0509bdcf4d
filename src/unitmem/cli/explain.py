"""unitmem explain"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from unitmem.cli.completion import unit_names
from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User, span
from unitmem.errors import NoSuchUnitError, UnitmemError, UsageError
from unitmem.explain.attribution import attribute
from unitmem.explain.journalctl import read_entries
from unitmem.record.event import Event
from unitmem.record.history import History, HistoryError, find_histories
from unitmem.report.document import emit
from unitmem.report.explain import Explanation, explanation_document, print_explanation, print_overview
from unitmem.report.failure import say, tell
from unitmem.report.terminal import console_on
from unitmem.unit import ManagerKind, complete_name, is_glob

T = TypeVar("T")


def explain_unit(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[UNIT]", help="Its name; all of them without it.", autocompletion=unit_names),
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="SPAN", help="How far back to look, such as 1h or 2d.")
    ] = "7d",
    user: User = False,
    as_json: Json = False,
) -> None:
    """Tell what was done to a unit and why, or who else ended it.

    Decisions come from the histories of the watches that run as services, ends of runs from the
    journal: by the kernel's OOM killer, systemd-oomd, a person, or the unit itself. Without UNIT a
    line for each about which something was decided; ends by others are told with UNIT only.
    """
    if name is not None and is_glob(name):
        raise UsageError(
            f"{name!r} is a pattern, and explain takes one unit",
            hint="`unitmem explain` alone lists all units with recorded events",
        )
    start = time.time() - span("--since", since)
    machine = Machine.of(context)
    with ExitStack() as stack:
        histories = _Histories(machine.histories(user=user), start, stack)
        if name is None:
            _tell_all(histories, since, as_json=as_json)
        else:
            _tell_one(complete_name(name), histories, machine, since, user=user, as_json=as_json)
    if histories.problems:
        raise typer.Exit(1)


class _Histories:
    """The histories of all instances, from `start` on. One that can't be read is reported at once, and left out.

    Args:
        roots: the directories to search.
        start: seconds since the epoch.
        stack: closes them.
    """

    def __init__(self, roots: Iterable[Path], start: float, stack: ExitStack) -> None:
        self.start = start
        self.problems = 0
        self._histories: list[History] = []
        for root in roots:
            for path in self._try(find_histories, root) or ():
                if (history := self._try(History, path)) is not None:
                    self._histories.append(stack.enter_context(history))

    def events(self, unit: str | None = None) -> list[Event]:
        """Return the events of `unit`, or of every unit, oldest first."""
        found = [self._try(history.events, unit, self.start) or () for history in self._histories]
        return sorted((event for events in found for event in events), key=lambda event: event.at)

    def series(self, unit: str, measure: str, since: float, until: float) -> list[tuple[float, float]]:
        """Return (wall clock, value) pairs of one measure of `unit`, from the history that has the most of them."""
        found = (self._try(history.series, unit, measure, since, until) for history in self._histories)
        return max((points or [] for points in found), key=len, default=[])

    def _try(self, read: Callable[..., T], *arguments: object) -> T | None:
        try:
            return read(*arguments)
        except HistoryError as error:
            self.problems += 1
            tell(error)
            return None


def _tell_all(histories: _Histories, since: str, *, as_json: bool) -> None:
    events = histories.events()
    explanations = [
        Explanation(unit, [event for event in events if event.unit == unit])
        for unit in sorted({event.unit for event in events})
    ]
    if as_json:
        emit({"units": [explanation_document(explanation) for explanation in explanations]})
    elif explanations:
        print_overview(explanations, console_on(sys.stdout))
    elif not histories.problems:
        say(f"nothing was decided about any unit in the last {since}")


def _tell_one(
    unit: str, histories: _Histories, machine: Machine, since: str, *, user: bool, as_json: bool
) -> None:
    events = histories.events(unit)
    entries = read_entries(unit, histories.start, user=user)
    uid = os.getuid() if user else None
    endings = [ending for ending in attribute(entries, uid=uid) if ending.unit == unit]
    if not events and not endings:
        _require_loaded(unit, machine, since, user=user)
    explanation = Explanation(unit, events, endings)
    if as_json:
        emit(explanation_document(explanation))
    else:
        known = "no end of it is recorded"
        if not histories.problems:
            known = f"nothing was done to it, and {known}"
        print_explanation(
            explanation, histories.series, console_on(sys.stdout), otherwise=f"{known}, in the last {since}"
        )


def _require_loaded(unit: str, machine: Machine, since: str, *, user: bool) -> None:
    """Raise an error if no unit of that name is loaded: it may be misspelt."""
    try:
        with machine.connect(ManagerKind.of(user=user)) as manager:
            manager.describe(unit)
    except NoSuchUnitError as error:
        raise NoSuchUnitError(f"{error}, and nothing is recorded about one in the last {since}") from None
    except UnitmemError:
        pass  # the manager knows no more than the records
