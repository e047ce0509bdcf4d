"""The command line: a module for each verb, whose function's docstring is its help.

Importing Typer takes five times as long as the interpreter's start: here it waits until it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it; a TAB needs nothing of typing
if TYPE_CHECKING:
    import typer

    from unitmem.cli.machine import Machine
    from unitmem.errors import UsageError

VERBS = {
    "list": "list_units",
    "show": "show_unit",
    "top": "top_units",
    "check": "check_policies",
    "plan": "plan_policies",
    "watch": "watch_units",
    "status": "show_status",
    "reset": "reset_watch",
    "explain": "explain_unit",
    "replay": "replay_policy",
    "metrics": "print_metrics",
    "guard": "guard_process",
    "schema": "print_schema",
}
"""The name of each verb's function, which is in the module named after the verb; in the order of the help."""


def main(arguments: Sequence[str], machine: Machine | None = None) -> int:
    """Run one command line; return its exit status: 0 done, 1 failed, 2 usage, 4 no such unit, 78 a bad policy file.

    Args:
        arguments: without the program's name; an empty list asks for help.
        machine: the machine to look at; None is this one, a test passes its own.
    """
    from unitmem.report import failure  # noqa: PLC0415

    # `list` is a module here, the verb's
    return failure.run(lambda: _run([*arguments] or ["--help"], machine))


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the program with only the verbs that `arguments` need, since each import delays the command."""
    import typer  # noqa: PLC0415

    from unitmem.cli.root import options  # noqa: PLC0415

    app = typer.Typer(
        name="unitmem",
        callback=options,
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
    import typer  # noqa: PLC0415

    from unitmem.cli.root import ClickError  # noqa: PLC0415
    from unitmem.report import failure  # noqa: PLC0415

    try:
        status = application(arguments)(arguments, prog_name="unitmem", obj=machine, standalone_mode=False)
    except typer.Abort:
        return failure.INTERRUPTED
    except ClickError as error:
        raise _usage_error(error) from None
    return status if isinstance(status, int) else 0


def _usage_error(error: Exception) -> UsageError:
    """Return click's error as a `UsageError`, in unitmem's wording."""
    from unitmem.errors import UsageError  # noqa: PLC0415

    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "unitmem"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return UsageError(message[:1].lower() + message[1:].rstrip("."), hint=f"see `{command} --help`")
