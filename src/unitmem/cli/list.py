"""unitmem list"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unitmem.cli.completion import Patterns
from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.cli.options import Json, User, sort_option
from unitmem.report.document import emit, units_document
from unitmem.report.failure import say
from unitmem.report.terminal import console_on
from unitmem.report.units import DEFAULT_SORT, SORT_FIELDS, print_units, sort_units


def list_units(
    context: typer.Context,
    patterns: Patterns = None,
    sort: Annotated[str, sort_option(SORT_FIELDS)] = DEFAULT_SORT,
    pss: Annotated[
        bool,
        typer.Option(
            "--pss",
            help="Add PSS, summed over each unit's processes. It walks their page tables: "
            "about 15 ms per GiB, during which each process waits.",
        ),
    ] = False,
    include_all: Annotated[
        bool, typer.Option("--all", help="Also slices, and loaded units without a cgroup.")
    ] = False,
    user: User = False,
    as_json: Json = False,
) -> None:
    """List units and their memory.

    Without a pattern: every unit that has a cgroup, except slices, which are sums of the others.
    A glob ("web@*", quoted) lists what matches and has a cgroup, slices too. A name lists that unit
    in any state; one that doesn't exist ends with status 4.

    LIMIT is the tightest memory limit on the way from the unit up to the machine, and USED% the
    share of it that WORKINGSET takes, the memory without inactive page cache. PRESSURE is the share
    of the last 10 s in which some of the unit's tasks waited for memory. A narrow terminal shows
    fewer columns. Largest first; headroom least first; unknown last.
    """
    pss = pss or sort == "pss"
    sample = Machine.of(context).sample(
        patterns or [],
        user=user,
        wanted={"pss"} if pss else (),
        include_all=include_all,
        brief=not as_json,
    )
    units = sort_units(sample.units.values(), sort)
    if as_json:
        emit(units_document(sample, units))
    elif units:
        print_units(sample, units, console_on(sys.stdout), with_pss=pss)
    else:
        say("unitmem: no matching unit has a cgroup")
    note_refused(units, "that are null" if as_json else "shown as `-`")
