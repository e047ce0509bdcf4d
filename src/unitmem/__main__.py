"""The executable `unitmem`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from importlib import import_module
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
    except OSError as error:  # a module can't be opened: later errors are told by `failure.run`
        sys.stderr.write(f"unitmem: can't be started: {error.strerror or error}\n")
        status = 1
    sys.exit(status)


def _run() -> int:
    """Run the command line and return its exit status.

    A `watch` starts without Typer and rich, which would stay in the daemon's memory as long as it runs.
    Everything else, help and usage errors included, goes through `cli.main`, whose `watch` calls the
    same function.
    """
    _leave_out_lxml()
    arguments = sys.argv[1:]
    call = _read_watch(arguments[1:]) if arguments[:1] == ["watch"] else None
    if call is not None:
        _defer_inspect()
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


def _leave_out_lxml() -> None:
    """Put an empty module in place of lxml, which pystemd imports for introspection; unitmem doesn't introspect.

    The real one takes 4 MiB, a quarter of the daemon's memory, and delays every command.
    """
    lxml = ModuleType("lxml")
    lxml.etree = sys.modules["lxml.etree"] = ModuleType("lxml.etree")  # type: ignore[attr-defined]
    sys.modules["lxml"] = lxml


class _Deferred(ModuleType):
    """A module that is imported when something of it is used that it doesn't have itself."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            vars(self).update(vars(import_module(self.__name__)))
        return getattr(import_module(self.__name__), name)


def _defer_inspect() -> None:
    """Put a deferred module in place of inspect: dataclasses needs it for classes without a docstring only.

    The real one takes a megabyte. From Python 3.12 on, dataclasses asks it for a class's annotations as well.
    """
    inspect = _Deferred("inspect")
    inspect.get_annotations = lambda cls: dict(vars(cls).get("__annotations__", {}))  # type: ignore[attr-defined]
    sys.modules.setdefault("inspect", inspect)


if __name__ == "__main__":
    main()
