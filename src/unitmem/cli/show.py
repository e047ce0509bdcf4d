"""unitmem show"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unitmem.cli.completion import unit_names
from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.cli.options import Json, User
from unitmem.errors import UnitmemError, UsageError
from unitmem.report.document import emit, unit_document
from unitmem.report.terminal import console_on
from unitmem.report.unit import print_sources, print_unit
from unitmem.unit import is_glob


def show_unit(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="UNIT", help="Its name.", autocompletion=unit_names)],
    explain: Annotated[
        bool, typer.Option("--explain", help="Each number with the file it comes from, and its formula.")
    ] = False,
    pss: Annotated[
        bool,
        typer.Option(
            help="Whether to read PSS, USS and SwapPss, which takes about 15 ms per GiB, "
            "during which each process waits."
        ),
    ] = True,
    user: User = False,
    as_json: Json = False,
) -> None:
    """Show one unit: its measures, limits and processes.

    That is every measure, the limits of each slice above it, and its processes by PSS, the largest
    first. Where a number is unknown, it is marked - and the reason follows. A unit that doesn't run
    has nothing to measure, which is no failure.
    """
    if is_glob(name):
        raise UsageError(
            f"{name!r} is a pattern, and show takes one unit", hint=f"try `unitmem list '{name}'`"
        )
    if explain and as_json:
        raise UsageError(
            "--explain and --json don't go together",
            hint="leave one of them out; formulas are the same for every unit, see unitmem.yaml(5)",
        )
    machine = Machine.of(context)
    sample = machine.sample([name], user=user, wanted={"pss"} if pss else {"rss"})
    unit = next(iter(sample.units.values()), None)
    if unit is None:
        raise UnitmemError(f"{name} stopped while it was being read", hint="try again")
    if as_json:
        emit(unit_document(sample, unit))
    elif explain:
        print_sources(sample, unit, console_on(sys.stdout), machine.cgroups)
    else:
        print_unit(sample, unit, console_on(sys.stdout))
    note_refused([unit], "that are null" if as_json else "shown as `-`")
