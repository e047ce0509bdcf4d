"""The executable `unitmem`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from types import ModuleType
from typing import Any

_WATCH_FLAGS = {"--observe", "--once", "--user"}
_WATCH_OPTIONS = {"--textfile", "--listen"}


def main() -> None:
    """Run the command line; Ctrl-C ends it silently, even while modules are still being imported."""
    try:
        status = _run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _run() -> int:
    """Run the command line and return its exit status.

    A `watch` starts without Typer, which would stay in the daemon's memory as long as it runs.
    Everything else, help and usage errors included, goes through `cli.main`, whose `watch` calls the
    same function.
    """
    _leave_out()
    arguments = sys.argv[1:]
    call = _read_watch(arguments[1:]) if arguments[:1] == ["watch"] else None
    if call is not None:
        from unitmem.daemon.main import main as watch  # noqa: PLC0415
        from unitmem.report import failure  # noqa: PLC0415

        path, options = call
        return failure.run(lambda: watch(path, **options))
    # `unitmem list | head` ends without a word, as other programs do
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # `…`, where the locale lacks it
    from unitmem.cli import main as command_line  # noqa: PLC0415

    return command_line(arguments)


def _read_watch(words: Iterable[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the policy file and the options that follow `watch`; None unless `words` are exactly these."""
    paths = []
    options: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name, has_value, value = word.partition("=")
        if word in _WATCH_FLAGS:
            options[word.removeprefix("--")] = True
        elif name in _WATCH_OPTIONS:
            options[name.removeprefix("--")] = value if has_value else next(rest, "")
        else:
            paths.append(word)
    # what looks like an option, or is empty, is for the command line proper to judge
    is_plain = all(given and not str(given).startswith("-") for given in (*paths, *options.values()))
    return (paths[0], options) if is_plain and len(paths) == 1 else None


def _leave_out() -> None:
    """Keep out what libraries import and unitmem has no use for, as if it weren't installed.

    pystemd imports lxml for introspection, which takes 4 MiB, a quarter of the daemon's memory. Typer imports rich's
    Markdown and pygments for help in boxes, two thirds of the time that its own import takes; ours is plain text,
    which a man page can be held against.
    """
    lxml = ModuleType("lxml")
    lxml.etree = sys.modules["lxml.etree"] = ModuleType("lxml.etree")  # type: ignore[attr-defined]
    sys.modules["lxml"] = lxml
    # as the import system notes what it doesn't find
    sys.modules["rich"] = None  # type: ignore[assignment]


if __name__ == "__main__":
    main()
