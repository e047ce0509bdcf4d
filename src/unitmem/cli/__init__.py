"""The command line: a module for each verb, whose function's docstring is its help."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from unitmem import __version__
from unitmem.errors import UsageError
from unitmem.report import failure

if TYPE_CHECKING:  # what reads units takes a while to import, and not every verb does
    from unitmem.cli.machine import Machine

VERBS = {
    "list": "list_units",
    "show": "show_unit",
    "top": "top_units",
    "check": "check_policies",
    "plan": "plan_policies",
    "watch": "watch_units",
    "status": "show_status",
    "explain": "explain_unit",
    "replay": "replay_policy",
    "metrics": "print_metrics",
    "guard": "guard_process",
    "schema": "print_schema",
}
"""The name of each verb's function, which is in the module named after the verb; in the order of the help."""

# Click's, which is a package of its own up to Typer 0.25 and a part of Typer since
_ClickException: type[Exception] = next(
    parent for parent in typer.BadParameter.__mro__ if parent.__name__ == "ClickException"
)


def main(arguments: Sequence[str], machine: Machine | None = None) -> int:
    """Run one command line; return its exit status: 0 done, 1 failed, 2 usage, 4 no such unit, 78 a bad policy file.

    Args:
        arguments: without the program's name; an empty list asks for help.
        machine: the machine to look at; None is this one, a test passes its own.
    """
    # `list` is a module here, the verb's
    return failure.run(lambda: _run([*arguments] or ["--help"], machine))


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the program with only the verbs that `arguments` need, since each import delays the command."""
    app = typer.Typer(
        name="unitmem",
        callback=_options,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # plain text, which a man page can be held against
        pretty_exceptions_enable=False,
    )
    verb = next(iter(arguments), "")
    for name in [verb] if verb in VERBS else VERBS:
        # what follows the name of a command that is run is its own
        settings = {"allow_interspersed_args": name != "guard"}
        app.command(name, context_settings=settings)(
            getattr(import_module(f"{__name__}.{name}"), VERBS[name])
        )
    return app


def _run(arguments: list[str], machine: Machine | None) -> int:
    try:
        status = application(arguments)(arguments, prog_name="unitmem", obj=machine, standalone_mode=False)
    except typer.Abort:
        return failure.INTERRUPTED
    except _ClickException as error:
        raise _usage_error(error) from None
    return status if isinstance(status, int) else 0


def _usage_error(error: Exception) -> UsageError:
    """Return click's error as a `UsageError`, in unitmem's wording."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "unitmem"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return UsageError(message[:1].lower() + message[1:].rstrip("."), hint=f"see `{command} --help`")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unitmem {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what memory systemd units use, and govern it by policies that act before the OOM killer does."""
