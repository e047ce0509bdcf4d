"""unitmem explain"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import Annotated

import typer

from unitmem.cli.completion import unit_names
from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.ending import attribute
from unitmem.errors import UsageError
from unitmem.history import History, find_histories
from unitmem.journalctl import read_entries
from unitmem.quantity import QuantityError, parse_span
from unitmem.report.document import dump
from unitmem.report.explain import Story, print_overview, print_story, story_document
from unitmem.report.failure import say
from unitmem.report.terminal import console_on
from unitmem.unit import complete_name


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
    """Tell what was done to a unit and why; also when it was not us who ended it.

    Decisions come from the histories of the watches that run as services, ends of runs from the
    journal: by the kernel's OOM killer, systemd-oomd, a person, or the unit itself.
    """
    machine = Machine.of(context)
    try:
        start = time.time() - parse_span(since)
    except QuantityError as error:
        raise UsageError(f"--since: {error}") from None
    unit = None if name is None else complete_name(name)
    with ExitStack() as stack:
        histories = [
            stack.enter_context(History(path)) for path in find_histories(machine.histories(user=user))
        ]
        events = sorted(
            (event for history in histories for event in history.events(unit, start)),
            key=lambda event: event.at,
        )

        def series(unit: str, measure: str, since: float, until: float) -> list[tuple[float, float]]:
            return max(
                (history.series(unit, measure, since, until) for history in histories), key=len, default=[]
            )

        if unit is not None:
            entries = read_entries(unit, start, user=user)
            uid = os.getuid() if user else None
            endings = [ending for ending in attribute(entries, uid=uid) if ending.unit == unit]
            story = Story(unit, events, endings)
            if as_json:
                typer.echo(dump(story_document(story)))
            else:
                print_story(story, series, console_on(sys.stdout))
            return
    stories = [
        Story(unit, [event for event in events if event.unit == unit], [])
        for unit in sorted({event.unit for event in events})
    ]
    if as_json:
        typer.echo(dump({"units": [story_document(story) for story in stories]}))
    elif stories:
        print_overview(stories, console_on(sys.stdout))
    else:
        say(f"nothing was decided about any unit in the last {since}")
