"""Shell completion of unit names, and the argument that takes several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.tab import harmless
from unitmem.errors import UnitmemError
from unitmem.measure.snapshot import is_present
from unitmem.unit import CGROUP_KINDS, ManagerKind


def unit_names(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield (name, description) of loaded units that can have a cgroup; nothing if the manager can't be asked."""
    try:
        kind = ManagerKind.of(user=bool(context.params.get("user")))
        with Machine.of(context).connect(kind) as manager:
            units = manager.list_units()
    except UnitmemError:
        return
    for unit in units:
        if unit.kind in CGROUP_KINDS and is_present(unit) and unit.name.startswith(incomplete):
            yield unit.name, harmless(unit.description)


Patterns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATTERN]...", help="Names or globs of units.", autocompletion=unit_names),
]
