"""unitmem show"""

from __future__ import annotations

from typing import Annotated

import typer

from unitmem.cli.completion import unit_names
from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.cli.units import print_one


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
    print_one(Machine.of(context), name, explain=explain, pss=pss, user=user, as_json=as_json)
