"""unitmem status"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.cli.watches import ask, instance_names, instance_of, not_running
from unitmem.report.document import emit
from unitmem.report.failure import tell
from unitmem.report.status import print_statuses
from unitmem.report.terminal import console_on
from unitmem.tell.interface import STATUS


def show_status(
    context: typer.Context,
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE]",
            help="NAME of unitmem@NAME.service; all that run without it.",
            autocompletion=instance_names,
        ),
    ] = None,
    user: User = False,
    as_json: Json = False,
) -> None:
    """Show what running watches see, and where each step stands.

    That is each unit with what is measured, what is unknown and why, and the time left. HELD is for
    how long a step's condition has held, FOR how long it has to, and LEFT when the step fires if it
    goes on. Status 1 if no such watch runs, or one that runs doesn't answer.
    """
    if instance is not None:
        instance = instance_of(instance)
    answers = ask(Machine.of(context).watches(user=user), instance, STATUS)
    if not answers:
        raise not_running(instance, user=user)
    documents = [answer.status for answer in answers if answer.status is not None]
    if as_json:
        emit({"watches": documents})
    elif documents:
        print_statuses(documents, time.time(), console_on(sys.stdout))
    errors = [answer.error for answer in answers if answer.error is not None]
    for error in errors:
        tell(error)
    if errors:
        raise typer.Exit(1)
