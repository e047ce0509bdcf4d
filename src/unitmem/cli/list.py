"""unitmem list"""

from __future__ import annotations

from typing import Annotated

import typer

from unitmem.cli.completion import Patterns
from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User, sort_option
from unitmem.cli.units import print_list
from unitmem.report.units import DEFAULT_SORT, SORT_FIELDS


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
    print_list(
        Machine.of(context),
        patterns or [],
        sort=sort,
        pss=pss,
        include_all=include_all,
        user=user,
        as_json=as_json,
    )
