"""unitmem plan"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.cli.options import Json, User
from unitmem.errors import NoSuchUnitError
from unitmem.policyfile import reader as config
from unitmem.report.document import emit
from unitmem.report.plan import plan_document, print_plan
from unitmem.report.terminal import console_on
from unitmem.simulate.plan import Answers, plan


def plan_policies(
    context: typer.Context,
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A policy file.")],
    user: User = False,
    as_json: Json = False,
) -> None:
    """Show what a policy file would do here now, and do nothing.

    For each policy: the units that match, whether each step's condition would hold now and by which
    numbers, which units are protected, so that only `log` is performed, what stopping each also stops,
    and what would start it again. Steps that can't fire here come with the reason.

    It is one look: `for` is not waited for, and what takes a span of time (growth, eta) is unknown.
    """
    file = config.load(policy).file
    patterns = sorted({pattern for each in file.policies for pattern in each.units})
    with Machine.of(context).system(user=user) as system:
        sample = system.sample(*patterns, measures=file.measures, include_all=True, skip_missing=True)
        manager = system.manager
        active = {
            unit.name for unit in manager.list_units() if unit.active_state not in ("inactive", "failed")
        }

        @cache
        def dependents(name: str) -> Mapping[str, tuple[str, ...]]:
            try:
                return manager.dependents(name)
            except NoSuchUnitError:  # unloaded since another unit named it
                return {}

        def refuses_stops(name: str) -> bool:
            try:
                return manager.refuses_stops(name)
            except NoSuchUnitError:
                return False

        plans = plan(file, sample, Answers(active.__contains__, dependents, refuses_stops))
    if as_json:
        emit(plan_document(plans))
    else:
        print_plan(plans, console_on(sys.stdout))
    note_refused((unit.sample for each in plans for unit in each.units), "that are unknown")
