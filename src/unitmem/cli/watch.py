"""unitmem watch"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from unitmem.cli.options import User


def watch_units(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A policy file.")],
    observe: Annotated[
        bool, typer.Option("--observe", help="Log every decision, but perform nothing.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Run one tick, wait for its actions, and exit.")
    ] = False,
    user: User = False,
    textfile: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write metrics for Prometheus into this file.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS:]PORT",
            help="Serve metrics over HTTP; a port alone is on 127.0.0.1. Needs prometheus-client.",
        ),
    ] = None,
) -> None:
    """Watch units by a policy file, and act on it. This is what unitmem@.service runs.

    It stays in the foreground until SIGTERM or SIGINT. SIGHUP has it read the file again; a file
    with mistakes changes nothing. What it does is logged in the journal, and on stderr.
    """
    from unitmem.daemon.main import main  # noqa: PLC0415 - no other command needs it

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a reader that went away ends a listing, not a guard
    raise typer.Exit(
        main(str(policy), observe=observe, once=once, user=user, textfile=textfile, listen=listen)
    )
