"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from unitmem.errors import UsageError
from unitmem.text import QuantityError, parse_span

User = Annotated[bool, typer.Option("--user", help="The calling user's own units, not the machine's.")]
Json = Annotated[bool, typer.Option("--json", help="A JSON document; see unitmem(1).")]


def sort_option(fields: Sequence[str]) -> Any:
    """Return the option --sort, which takes one of `fields` and refuses anything else."""

    def check(field: str) -> str:
        if field not in fields:
            raise UsageError(
                f"there is no field {field!r} to sort by", hint=f"use one of {', '.join(fields)}"
            )
        return field

    return typer.Option(
        metavar="FIELD",
        help=f"One of {', '.join(fields)}.",
        callback=check,
        autocompletion=lambda incomplete: [field for field in fields if field.startswith(incomplete)],
    )


def span(option: str, text: str, least: float = 0.0, example: str = "1s") -> float:
    """Return the seconds of `text`, the span that was given for `option`.

    Raises:
        UsageError: it can't be read, or is less than `least`, which is spelled `example`.
    """
    try:
        seconds = 0.0 if least and is_bare_zero(text) else parse_span(text)
    except QuantityError as error:
        raise UsageError(f"{option}: {error}") from None
    if seconds < least:
        raise UsageError(f"{option} {text} is too short", hint=f"{example} is the shortest")
    return seconds


def is_bare_zero(text: str) -> bool:
    """Return whether `text` is 0 without a unit of time: then too short is a better message than a missing unit."""
    return text.strip() == "0"
