"""unitmem: the program itself, as Typer has it."""

from __future__ import annotations

from typing import Annotated

import typer

from unitmem import __version__

# Click's, which is a package of its own up to Typer 0.25 and a part of Typer since
ClickError: type[Exception] = next(
    parent for parent in typer.BadParameter.__mro__ if parent.__name__ == "ClickException"
)


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unitmem {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what memory systemd units use, and govern it by policies that act before the OOM killer does."""
