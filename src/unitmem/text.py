"""Text for people: what is safe to print, lists and counts of names, what a name may be a misspelling of."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """`text` with what would break a line or a terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(names: Iterable[str]) -> str:
    """The names between backticks, with commas: "`a`, `b`"."""
    return ", ".join(f"`{name}`" for name in names)


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` of `names`, and how many more there are: `a, b, c and 4 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 step` or `2 steps`; `many` where the plural takes more than an `s`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def closest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` may be a misspelling of, if any is close."""
    import difflib  # noqa: PLC0415 - only where there is a mistake to explain

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)), None)


def close_to(name: str, names: Iterable[str]) -> str:
    """What follows a name that doesn't exist: " (did you mean `stop`?)", or nothing where none of `names` is close."""
    close = closest(name, names)
    return f" (did you mean `{close}`?)" if close else ""


def signal_name(number: int) -> str:
    """`SIGTERM`; `signal 40` for one that has no name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
