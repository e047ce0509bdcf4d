"""Command lines that are plain enough to be understood without Typer, whose import takes most of a short command's time.

What isn't exactly of one of these forms, help and mistakes included, is Typer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from unitmem import __version__

TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from typing import Any

_FLAGS = {
    "list": {"--pss": "pss", "--all": "include_all", "--user": "user", "--json": "as_json"},
    "show": {"--explain": "explain", "--pss": "pss", "--user": "user", "--json": "as_json"},
    "watch": {"--observe": "observe", "--once": "once", "--user": "user"},
    "schema": {},
}
"""The options without a value, and the parameters that they set."""
_VALUES = {"list": {"--sort"}, "watch": {"--textfile", "--listen"}}
"""Those with a value; the parameter has the same name."""


def answer(arguments: list[str]) -> str | None:
    """Return what is printed for a command line that asks for nothing but the version; None for any other."""
    return f"unitmem {__version__}" if arguments == ["--version"] else None


def understand(arguments: list[str]) -> Callable[[], int] | None:
    """Return the command of a plain command line; None if it is for Typer."""
    verb = arguments[0] if arguments else ""
    call = _read(arguments[1:], _FLAGS[verb], _VALUES.get(verb, set())) if verb in _FLAGS else None
    if call is None:
        return None
    words, options = call
    match verb:
        case "list":
            return _list(words, options)
        case "show" if len(words) == 1:
            return partial(_show, words[0], options)
        case "watch" if len(words) == 1:
            return partial(_watch, words[0], options)
        case "schema" if not words:
            return _print_schema
    return None


def _read(
    words: Iterable[str], flags: Mapping[str, str], valued: set[str]
) -> tuple[list[str], dict[str, Any]] | None:
    """Return the words that are no options, and the options by their parameters; None unless all is plain."""
    plain: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name, has_value, value = word.partition("=")
        if word in flags:
            options[flags[word]] = True
        elif name in valued:
            options[name.removeprefix("--")] = value if has_value else next(rest, "")
        else:
            plain.append(word)
    # what looks like an option, or is empty, is for Typer to judge
    is_plain = all(given and not str(given).startswith("-") for given in (*plain, *options.values()))
    return (plain, options) if is_plain else None


def _print_schema() -> int:
    from unitmem.cli.schema import print_schema  # noqa: PLC0415

    print_schema()
    return 0


def _watch(path: str, options: dict[str, Any]) -> int:
    from unitmem.daemon.main import main  # noqa: PLC0415

    return main(path, **options)


def _list(patterns: list[str], options: dict[str, Any]) -> Callable[[], int] | None:
    from unitmem.cli.machine import Machine  # noqa: PLC0415
    from unitmem.cli.units import print_list  # noqa: PLC0415
    from unitmem.report.units import SORT_FIELDS  # noqa: PLC0415

    if options.get("sort", "unit") not in SORT_FIELDS:
        return None

    def command() -> int:
        print_list(Machine(), patterns, **options)
        return 0

    return command


def _show(name: str, options: dict[str, Any]) -> int:
    from unitmem.cli.machine import Machine  # noqa: PLC0415
    from unitmem.cli.units import print_one  # noqa: PLC0415

    print_one(Machine(), name, **options)
    return 0
