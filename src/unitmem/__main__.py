"""The executable `unitmem`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType


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

    What is plain enough passes by Typer, which takes long to import, and would stay in the memory of a `watch` as long
    as it runs. Everything else, help and usage errors included, goes through `cli.main`, which calls the same functions.
    """
    _leave_out()
    from unitmem.cli import quick  # noqa: PLC0415 - it imports nothing itself

    arguments = sys.argv[1:]
    is_completion = "_UNITMEM_COMPLETE" in os.environ
    text = quick.complete(os.environ) if is_completion else quick.answer(arguments)
    if text is not None:
        with suppress(OSError):  # which is told below
            print(text, flush=True)  # noqa: T201
            return 0
    command = None if is_completion else quick.understand(arguments)
    if command is None or arguments[0] != "watch":
        # `unitmem list | head` ends without a word, as other programs do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # `…`, where the locale lacks it
    if command is not None:
        _defer_modules()
    from unitmem.cli import main as command_line  # noqa: PLC0415
    from unitmem.report import failure  # noqa: PLC0415

    return command_line(arguments) if command is None else failure.run(command)


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


class _Deferred(ModuleType):
    """A module that is imported when something of it is used that it doesn't have itself."""

    def __getattr__(self, name: str) -> object:
        if name == "__path__":  # asked of each module from which a name is imported
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            vars(self).update(vars(import_module(self.__name__)))
        return getattr(import_module(self.__name__), name)


def _defer_modules() -> None:
    """Put deferred modules in place of those that libraries import for what is hardly ever called.

    dataclasses needs inspect, a megabyte, for classes without a docstring only; from Python 3.12 on, it asks it for a
    class's annotations as well. pystemd needs uuid to name transient units, and pathlib, up to Python 3.12, needs
    urllib.parse for addresses of files.
    """
    inspect = _Deferred("inspect")
    inspect.get_annotations = lambda cls: dict(vars(cls).get("__annotations__", {}))  # type: ignore[attr-defined]
    sys.modules.setdefault("inspect", inspect)
    sys.modules.setdefault("uuid", _Deferred("uuid"))
    if sys.version_info < (3, 13) and "urllib.parse" not in sys.modules:
        import urllib  # noqa: PLC0415

        def quote(data: bytes) -> str:
            return str(import_module("urllib.parse").quote(data))

        parse = sys.modules["urllib.parse"] = urllib.parse = _Deferred("urllib.parse")
        parse.quote_from_bytes = quote  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
