"""unitmem status"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.errors import UnitmemError
from unitmem.report.document import emit
from unitmem.report.status import print_statuses
from unitmem.report.terminal import console_on
from unitmem.tell.status import read_statuses


def show_status(
    context: typer.Context,
    instance: Annotated[
        str | None,
        typer.Argument(metavar="[INSTANCE]", help="NAME of unitmem@NAME.service; all that run without it."),
    ] = None,
    user: User = False,
    as_json: Json = False,
) -> None:
    """Show what running watches see, and where each step stands.

    That is each unit with what is measured, what is unknown and why, and the time left. HELD is for
    how long a step's condition has held, FOR how long it has to, and LEFT when the step fires if it
    goes on. Status 1 if no such watch runs.
    """
    if instance is not None:
        instance = instance.removeprefix("unitmem@").removesuffix(".service")
    documents = list(read_statuses(Machine.of(context).statuses(user=user), instance))
    if not documents:
        which = "no unitmem@ service is" if instance is None else f"unitmem@{instance}.service is not"
        start = f"systemctl {'--user ' if user else ''}start unitmem@{instance or 'NAME'}.service"
        raise UnitmemError(f"{which} running", hint=f"start one with `{start}`")
    if as_json:
        emit({"watches": documents})
    else:
        print_statuses(documents, time.time(), console_on(sys.stdout))
