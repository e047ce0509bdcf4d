"""What `list` and `show` do, by their options; without Typer, which only reads those.

The pages of `show` and the documents are imported where they are printed: a table needs none of what they import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.errors import UnitmemError, UsageError
from unitmem.report.failure import say
from unitmem.report.terminal import console_on
from unitmem.report.units import DEFAULT_SORT, MEASURES_SHOWN, print_units, sort_units
from unitmem.unit import is_glob


def print_list(
    machine: Machine,
    patterns: Sequence[str],
    *,
    sort: str = DEFAULT_SORT,
    pss: bool = False,
    include_all: bool = False,
    user: bool = False,
    as_json: bool = False,
) -> None:
    """Print the units that `patterns` mean, as a table or as a document."""
    pss = pss or sort == "pss"
    wanted = {"pss"} if pss else set()
    if not as_json:
        wanted |= MEASURES_SHOWN
    sample = machine.sample(patterns, user=user, wanted=wanted, include_all=include_all, brief=not as_json)
    units = sort_units(sample.units.values(), sort)
    if as_json:
        from unitmem.report.document import emit, units_document  # noqa: PLC0415

        emit(units_document(sample, units))
    elif units:
        print_units(sample, units, console_on(sys.stdout), with_pss=pss)
    else:
        say("unitmem: no matching unit has a cgroup")
    note_refused(units, "that are null" if as_json else "shown as `-`")


def print_one(
    machine: Machine,
    name: str,
    *,
    explain: bool = False,
    pss: bool = True,
    user: bool = False,
    as_json: bool = False,
) -> None:
    """Print one unit with its processes, as a page or as a document.

    Raises:
        UsageError: it is a pattern, or the options contradict each other.
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
    sample = machine.sample([name], user=user, wanted={"pss"} if pss else {"rss"})
    unit = next(iter(sample.units.values()), None)
    if unit is None:
        raise UnitmemError(f"{name} stopped while it was being read", hint="try again")
    if as_json:
        from unitmem.report.document import emit, unit_document  # noqa: PLC0415

        emit(unit_document(sample, unit))
    elif explain:
        from unitmem.report.unit import print_sources  # noqa: PLC0415

        print_sources(sample, unit, console_on(sys.stdout), machine.cgroups)
    else:
        from unitmem.report.unit import print_unit  # noqa: PLC0415

        print_unit(sample, unit, console_on(sys.stdout))
    note_refused([unit], "that are null" if as_json else "shown as `-`")
