"""unitmem reset"""

from __future__ import annotations

from typing import Annotated

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.cli.watches import ask, instance_names, instance_of, not_running, watched_units
from unitmem.errors import UsageError
from unitmem.report.document import emit
from unitmem.report.failure import say
from unitmem.tell.interface import RESET
from unitmem.tell.reset import lines_of
from unitmem.unit import complete_name, is_unit_name

TIMEOUT = 10.0
"""Seconds to wait for the answer: whoever resets a watch wants to know that it is done."""


def reset_watch(
    context: typer.Context,
    instance: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE", help="NAME of unitmem@NAME.service.", autocompletion=instance_names
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[UNIT]", help="Only this one.", autocompletion=watched_units),
    ] = None,
    user: User = False,
    as_json: Json = False,
) -> None:
    """Give back budgets and end cooldowns, once the cause is mended.

    Steps that were withheld for them may fire again, in the same episode too; what has fired in it
    does not. Pauses after failed actions end as well, and what the manager has refused is tried
    again. With UNIT only what is kept about it, and not the file's budget. It takes root, or
    the user whose watch it is, and is told in the journal and by `unitmem explain`.
    """
    instance = instance_of(instance)
    unit = None if name is None else complete_name(name)
    if unit is not None and not is_unit_name(unit):
        raise UsageError(f"{name!r} is not the name of a unit", hint="without UNIT all units are reset")
    parameters = {} if unit is None else {"unit": unit}
    answers = ask(Machine.of(context).watches(user=user), instance, RESET, timeout=TIMEOUT, **parameters)
    if not answers:
        raise not_running(instance, user=user)
    (answer,) = answers
    if answer.error is not None:
        raise answer.error
    document = answer.parameters or {}
    if as_json:
        emit({"instance": instance, **document})
        return
    lines = lines_of(document)
    for line in lines:
        typer.echo(line)
    if not lines:
        if unit is None:
            say("nothing to reset: no cooldown, no spent budget, nothing refused")
        else:
            say(
                f"nothing to reset for {unit} alone; what withholds all units of a policy, such as a budget that they "
                f"share, is reset by `unitmem reset {instance}`"
            )
