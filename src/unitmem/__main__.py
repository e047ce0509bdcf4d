"""The executable `unitmem`."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
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
    # each imports nothing itself
    from unitmem.cli import quick, tab  # noqa: PLC0415

    arguments = sys.argv[1:]
    is_completion = "_UNITMEM_COMPLETE" in os.environ
    text = tab.answer(os.environ) if is_completion else quick.answer(arguments)
    if text is not None and _print(text):
        return 0
    import signal  # noqa: PLC0415 - as long as all of the above

    gc.disable()  # what ends at once makes no garbage that is worth looking for
    command = None if is_completion else quick.understand(arguments)
    if command is None or arguments[0] == "watch":
        gc.enable()
    if command is None or arguments[0] != "watch":
        # `unitmem list | head` ends without a word, as other programs do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # `…`, where the locale lacks it
    from unitmem.cli import main as command_line  # noqa: PLC0415
    from unitmem.report import failure  # noqa: PLC0415

    if command is None:
        return command_line(arguments)
    status = failure.run(command)
    gc.freeze()  # or the interpreter, as it ends, would look for garbage among all that there is
    return status


def _print(text: str) -> bool:
    """Print `text`; return False where it can't be written, which is told where everything else is."""
    try:
        print(text, flush=True)  # noqa: T201
    except (OSError, UnicodeError):
        return False
    return True


def _leave_out() -> None:
    """Keep out what libraries import and unitmem has little or no use for: it would delay the commands, and stay in the
    memory of a `watch`.

    Typer imports rich's Markdown and pygments for help in boxes, two thirds of the time that its own import takes; ours
    is plain text, which a man page can be held against. pystemd imports lxml for introspection, which takes 4 MiB, as
    the package is imported, and uuid and shlex for names and commands; its modules for the bus need none of these.
    dataclasses needs inspect, a megabyte, for classes without a docstring only, and pathlib, up to Python 3.12,
    urllib.parse for addresses of files.
    """
    # as the import system notes what it doesn't find
    sys.modules["rich"] = None  # type: ignore[assignment]
    for name in ("pystemd", "uuid", "shlex"):
        sys.modules.setdefault(name, _Deferred(name))
    # from Python 3.12 on, dataclasses asks for a class's annotations as well
    sys.modules.setdefault(
        "inspect",
        _Deferred("inspect", get_annotations=lambda cls: dict(vars(cls).get("__annotations__", {}))),
    )
    if sys.version_info < (3, 13) and "urllib.parse" not in sys.modules:
        import urllib  # noqa: PLC0415

        # pathlib takes this by its name
        parse = _Deferred(
            "urllib.parse", quote_from_bytes=lambda data: import_module("urllib.parse").quote(data)
        )
        sys.modules["urllib.parse"] = urllib.parse = parse


class _Deferred(ModuleType):
    """A module that is imported when something of it is used that it doesn't have itself.

    Modules within a package are imported without the package.

    Args:
        name: its full name.
        own: what it has itself.
    """

    def __init__(self, name: str, **own: object) -> None:
        super().__init__(name)
        vars(self).update(own)

    def __getattr__(self, name: str) -> object:
        if name == "__path__":
            spec = PathFinder.find_spec(self.__name__)
            if spec is None or spec.submodule_search_locations is None:
                raise AttributeError(name)
            self.__path__ = spec.submodule_search_locations
            return self.__path__
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            vars(self).update(vars(import_module(self.__name__)))
        return getattr(import_module(self.__name__), name)


if __name__ == "__main__":
    main()
